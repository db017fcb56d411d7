"""What serves the boot files: tftpd-hpa, and dnsmasq's proxy as a container or as a unit of systemd."""

from __future__ import annotations

from rpinfs.netboot.model import Plan
from rpinfs.netboot.render.dhcp import PROXY_CONFIG
from rpinfs.netboot.render.text import Rendered, comment


def tftpd_hpa(plan: Plan) -> Rendered:
    """Debian's tftpd-hpa."""
    lines = [
        *comment("Made by rpinfs netboot render, for tftpd-hpa."),
        'TFTP_USERNAME="tftp"',
        f'TFTP_DIRECTORY="{plan.nas.boot}"',
        'TFTP_ADDRESS=":69"',
        "",
        *comment(
            "--secure: names are looked for below the folder. What is not readable for everybody is not served: chmod"
            f" -R go+rX {plan.nas.boot} (rpi-eeprom#188)."
        ),
        *comment(
            "Never --refuse blksize or tsize: without the one all goes in blocks of 512 bytes, Pis ask for the other."
        ),
        'TFTP_OPTIONS="--secure"',
    ]
    box = "the Linux box" if plan.topology == "D" else "the NAS"
    return Rendered("tftpd-hpa", "/etc/default/tftpd-hpa", box, "\n".join(lines) + "\n")


def compose(_: Plan) -> Rendered:
    """dnsmasq's proxy as one container with the host's network."""
    lines = [
        *comment("Made by rpinfs netboot render. docker compose up -d, beside dnsmasq-proxy.conf and Dockerfile."),
        "services:",
        "  rpi-netboot:",
        "    build: .",
        "    restart: unless-stopped",
        *(
            "    " + line
            for line in comment(
                "DHCP is broadcast, and the answer must come from this host's own address: no bridge.", width=90
            )
        ),
        "    network_mode: host",
        "    read_only: true",
        "    cap_drop: [ALL]",
        "    # Ports below 1024, and answers to clients that have no address yet.",
        "    cap_add: [NET_ADMIN, NET_RAW, NET_BIND_SERVICE]",
        "    security_opt: [no-new-privileges]",
        "    volumes:",
        "      - ./dnsmasq-proxy.conf:/etc/dnsmasq.conf:ro",
    ]
    return Rendered("compose.yaml", "", "the NAS", "\n".join(lines) + "\n")


def dockerfile(_: Plan) -> Rendered:
    """The image of that container: Debian's dnsmasq, nothing else."""
    lines = [
        "# Made by rpinfs netboot render.",
        "FROM debian:trixie-slim",
        "RUN apt-get update && apt-get install --yes --no-install-recommends dnsmasq-base \\",
        "  && rm -rf /var/lib/apt/lists/*",
        "# As root: without capabilities there is no other user to become. It keeps no lease and no pid file.",
        'ENTRYPOINT ["dnsmasq", "--keep-in-foreground", "--log-facility=-", "--user=root", \\',
        '  "--pid-file=", "--dhcp-leasefile=/dev/null"]',
    ]
    return Rendered("Dockerfile", "", "the NAS", "\n".join(lines) + "\n")


def unit(plan: Plan) -> Rendered:
    """dnsmasq's proxy as a service of its own, beside a dnsmasq that may be there for names."""
    lines = [
        "# Made by rpinfs netboot render.",
        "[Unit]",
        "Description=Tells Raspberry Pis where to boot from (proxy DHCP)",
        "After=network-online.target",
        "Wants=network-online.target",
        "",
        "[Service]",
        "ExecStart=/usr/sbin/dnsmasq --keep-in-foreground --log-facility=- --pid-file= --dhcp-leasefile=/dev/null \\",
        f"  --conf-file={PROXY_CONFIG}",
        "Restart=on-failure",
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    box = "the Linux box" if plan.topology == "D" else "the NAS"
    return Rendered("rpi-netboot.service", "/etc/systemd/system/rpi-netboot.service", box, "\n".join(lines) + "\n")
