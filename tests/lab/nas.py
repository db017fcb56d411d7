"""The NAS: three shares over NFS, and what a Pi needs to netboot (DHCP, DNS, TFTP)."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path

from .network import NETWORK, PREFIX_LENGTH, Namespace, Switch
from .process import Daemon, LabError, run

# Of a nfs-ganesha that is not installed but lies in a root.
LOADER, PLUGINS = "usr/lib*/ld-linux-*.so.*", "usr/lib/*-linux-gnu/ganesha"
LIBRARIES = ("usr/lib/ganesha", "usr/lib/*-linux-gnu")
READY_SECONDS = 60.0
EXPORTS_READ = "Reread exports complete"
# Short, so that a test need not wait long for a dead Pi's locks; longer than an emulated Pi's worst pause.
LEASE_SECONDS = 20
GRACE_SECONDS = 20


class Nas(ABC):
    """What a test may do with a NAS, whatever serves the files.

    tftpboot, nfsroot and share are the folders behind /tftpboot, /nfsroot and /docker as the host sees them.
    """

    name: str
    address: str
    tftpboot: Path
    nfsroot: Path
    share: Path

    @abstractmethod
    def start(self) -> None:
        """Switch on; returns when it serves."""

    @abstractmethod
    def stop(self) -> None:
        """Shut down in order; returns when it serves no more."""

    @abstractmethod
    def pull_power(self) -> None:
        """Take the power away."""

    @abstractmethod
    def unplug(self) -> None:
        """Pull its network cable."""

    @abstractmethod
    def plug(self) -> None:
        """Put the network cable back."""

    @abstractmethod
    def add_pi(self, name: str, mac: str, address: str) -> None:
        """Know a Pi in DHCP and DNS."""

    @abstractmethod
    def log(self) -> str:
        """What its servers have written, for error messages."""

    def root_of(self, pi: str) -> Path:
        """A Pi's root as the host sees it."""
        return self.nfsroot / pi

    def image_path(self, name: str) -> Path:
        """An image on the share as the host sees it."""
        return self.share / name


class GaneshaNas(Nas):
    """nfs-ganesha and dnsmasq in a network namespace: no kernel module, nothing of the host's network."""

    def __init__(
        self,
        lab: str,
        name: str,
        switch: Switch,
        number: int,
        folder: Path,
        netboot: bool = True,
        disk: int = 0,
        ganesha: Path | None = None,
    ) -> None:
        self.name = name
        self._ganesha = ganesha
        self._with_netboot = netboot
        self.address = f"{NETWORK}.{number}"
        self._switch = switch
        self._work = folder / "work"
        self._dhcp_hosts = self._work / "dhcp-hosts"
        self.tftpboot, self.nfsroot, self.share = (folder / each for each in ("tftpboot", "nfsroot", "docker"))
        for path in (self.tftpboot, self.nfsroot, self.share, self._dhcp_hosts, self._work / "recovery"):
            path.mkdir(parents=True)
        if disk:
            self._give_disk(folder / "disk.img", disk)
        self._namespace = Namespace(f"{lab}-{name}")
        switch.connect(self._namespace, name)
        self._namespace.ip("address", "add", f"{self.address}/{PREFIX_LENGTH}", "dev", "eth0")
        self.nfs: Daemon | None = None
        self.netboot: Daemon | None = None

    def start(self) -> None:
        if self._with_netboot:
            self.start_netboot()
        self.start_nfs()

    def stop(self) -> None:
        self.stop_nfs()
        self.stop_netboot()

    def pull_power(self) -> None:
        for daemon in filter(None, (self.nfs, self.netboot)):
            daemon.kill()
        self.nfs = self.netboot = None

    def unplug(self) -> None:
        self._switch.unplug(self.name)

    def plug(self) -> None:
        self._switch.plug(self.name)

    def start_nfs(self) -> None:
        """Start the NFS server alone."""
        if self.nfs is not None:
            raise LabError(f"{self.name}: the NFS server is running already")
        config = self._work / "ganesha.conf"
        config.write_text(self._ganesha_config())
        argv = (*self._ganesha_program(), "-F", "-L", "STDOUT", "-p", self._work / "ganesha.pid", "-f", config)
        self.nfs = Daemon(f"{self.name}: nfs-ganesha", self._namespace.inside(*argv), self._work / "ganesha.log")
        self.nfs.wait_for("NFS SERVER INITIALIZED", READY_SECONDS)

    def stop_nfs(self) -> None:
        """Stop the NFS server alone: the Pis' I/O waits."""
        if self.nfs is not None:
            self.nfs.terminate()
            self.nfs = None

    def unexport_share(self) -> None:
        """Take the share for images out of the exports while the server runs: file handles of it become stale."""
        self._reread_exports(without="/docker")

    def export_share(self) -> None:
        """Export it again, as it was."""
        self._reread_exports()

    def _reread_exports(self, without: str = "") -> None:
        if self.nfs is None:
            raise LabError(f"{self.name}: the NFS server is not running")
        (self._work / "ganesha.conf").write_text(self._ganesha_config(without))
        read = self.nfs.output().count(EXPORTS_READ)
        self.nfs.reload()
        self.nfs.wait_until(lambda log: log.count(EXPORTS_READ) > read, READY_SECONDS, "the exports")

    def forget_clients(self) -> None:
        """Lose what the server keeps of its clients over a restart: none may reclaim anything. It must be off."""
        if self.nfs is not None:
            raise LabError(f"{self.name}: the NFS server is running")
        shutil.rmtree(self._work / "recovery")
        (self._work / "recovery").mkdir()

    def start_netboot(self) -> None:
        """Start DHCP, DNS and TFTP alone."""
        if self.netboot is not None:
            raise LabError(f"{self.name}: dnsmasq is running already")
        config = self._work / "dnsmasq.conf"
        config.write_text(self._dnsmasq_config())
        argv = ("dnsmasq", "--keep-in-foreground", "--pid-file=", "--log-facility=-", f"--conf-file={config}")
        self.netboot = Daemon(f"{self.name}: dnsmasq", self._namespace.inside(*argv), self._work / "dnsmasq.log")
        self.netboot.wait_for(r"TFTP root is", READY_SECONDS)

    def stop_netboot(self) -> None:
        """Stop DHCP, DNS and TFTP alone."""
        if self.netboot is not None:
            self.netboot.terminate()
            self.netboot = None

    def add_pi(self, name: str, mac: str, address: str) -> None:
        # dnsmasq watches the folder: no restart is needed.
        (self._dhcp_hosts / name).write_text(f"{mac},{address},{name},infinite\n")

    def inside(self, *argv: str | Path) -> list[str | Path]:
        """The argument list that runs a program in its network."""
        return self._namespace.inside(*argv)

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self._work.glob("*.log")))

    def _give_disk(self, file: Path, size: int) -> None:
        """Put the share for images on a small disk of its own, one that can be filled."""
        run(["truncate", f"--size={size}", file])
        run(["mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", file])
        run(["mount", "-o", "loop", file, self.share])

    def _ganesha_program(self) -> list[str | Path]:
        """This machine's, or that of a root, by the loader and libraries of that.

        Not by chroot: what it exports would have to be mounted in there, and copies of mounts keep things busy.
        """
        if self._ganesha is None:
            return ["ganesha.nfsd"]
        (loader,) = self._ganesha.glob(LOADER)
        libraries = ":".join(str(path) for form in LIBRARIES for path in self._ganesha.glob(form))
        return [loader, "--library-path", libraries, self._ganesha / "usr/bin/ganesha.nfsd"]

    def _ganesha_config(self, without: str = "") -> str:
        recovery = self._work / "recovery"
        folders = {"/tftpboot": self.tftpboot, "/nfsroot": self.nfsroot, "/docker": self.share}
        plugins = "" if self._ganesha is None else "".join(f'Plugins_Dir = "{p}";' for p in self._ganesha.glob(PLUGINS))
        text = GANESHA_CONFIG.format(recovery=recovery, lease=LEASE_SECONDS, grace=GRACE_SECONDS, plugins=plugins)
        for number, (export, path) in enumerate(folders.items(), start=1):
            if export == without:
                continue
            text += GANESHA_EXPORT.format(number=number, export=export, path=path)
        return text

    def _dnsmasq_config(self) -> str:
        return DNSMASQ_CONFIG.format(
            address=self.address,
            network=f"{NETWORK}.0",
            hosts=self._dhcp_hosts,
            leases=self._work / "dhcp.leases",
            tftpboot=self.tftpboot,
        )


# No Bind_addr: it keeps ganesha from starting in a namespace. No 4.2: its READ_PLUS answers EIO for a hole.
GANESHA_CONFIG = """\
NFS_CORE_PARAM {{
    {plugins}
    # Without CAP_SYS_RESOURCE, as in containers, Debian 13's does not start else; Debian 12's warns of a word unknown.
    allow_set_io_flusher_fail = true;
    Protocols = 4;
    Enable_NLM = false;
    Enable_RQUOTA = false;
}}
NFSv4 {{
    Minor_Versions = 0, 1;
    Only_Numeric_Owners = true;
    RecoveryBackend = fs;
    RecoveryRoot = {recovery};
    Lease_Lifetime = {lease};
    Grace_Period = {grace};
}}
MDCACHE {{
    # A file that a test removes from the NAS side would make listings of its folder fail for minutes.
    Dir_Chunk = 0;
}}
NFS_KRB5 {{
    Active_krb5 = false;
}}
EXPORT_DEFAULTS {{
    # What a test changes from the NAS side is seen at once, as on a NAS whose server is the kernel's.
    Attr_Expiration_Time = 0;
    Access_Type = RW;
    Squash = No_Root_Squash;
    SecType = sys;
    Transports = TCP;
}}
"""
GANESHA_EXPORT = """\
EXPORT {{
    Export_Id = {number};
    Path = {path};
    Pseudo = {export};
    FSAL {{ Name = VFS; }}
}}
"""
DNSMASQ_CONFIG = """\
user=root
interface=eth0
bind-interfaces
no-hosts
no-resolv
host-record=nas.local,nas,{address}
dhcp-range={network},static
dhcp-hostsdir={hosts}
dhcp-leasefile={leases}
dhcp-authoritative
# The ROM and the initramfs name themselves differently and are one machine all the same.
dhcp-ignore-clid
log-dhcp
pxe-service=0,"Raspberry Pi Boot"
enable-tftp
tftp-root={tftpboot}
"""
