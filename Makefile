# rpinfs: build, test and try it. Works from a fresh clone on a bare Debian 12 or 13, as root or with sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Debian's programs and Debian's Python alone, whatever else (pyenv, ~/.local, /usr/local) there is: what nobody has
# listed in PACKAGES or TOOLS is not to be found.
export PATH := /usr/sbin:/usr/bin:/sbin:/bin
export PYTHONNOUSERSITE := 1
export PYTHONDONTWRITEBYTECODE := 1
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP
CACHE := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/rpinfs
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis

SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
# What of our environment is to pass sudo.
AS_ROOT = $(SUDO) env PATH="$$PATH" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 \
  HYPOTHESIS_STORAGE_DIRECTORY='$(HYPOTHESIS_STORAGE_DIRECTORY)' RPINFS_ALL_POINTS="$${RPINFS_ALL_POINTS-}" \
  RPINFS_LAB_ARCH="$${RPINFS_LAB_ARCH-}" RPINFS_SEED="$${RPINFS_SEED-}"

ARCHITECTURE := $(shell dpkg --print-architecture)
QEMU := $(if $(filter arm64,$(ARCHITECTURE)),qemu-system-arm,qemu-system-x86)
# ext4 grows only where root may do all, which it may not in a container: the tests then boot a kernel of their own.
UML := $(if $(filter amd64,$(ARCHITECTURE)),user-mode-linux)
# The C headers of the Pis' architectures, and of their compilers what reads these (cc1): 30 MB.
CROSS := $(foreach cross,$(if $(filter amd64,$(ARCHITECTURE)),aarch64-linux-gnu/arm64) \
  $(if $(filter amd64 arm64,$(ARCHITECTURE)),arm-linux-gnueabihf/armhf),\
  cpp-$(patsubst %/,%,$(dir $(cross))) libc6-dev-$(notdir $(cross))-cross)
# The modules of Debian's that rpinfs and the tests import, with lxml for pystemd: the environment has these and no more.
WINDOWS := python3-psutil python3-pyroute2 python3-pystemd python3-lxml python3-sdnotify
# What building, linting and the tests run; the names are the same in Debian 12 and 13.
PACKAGES := \
  git make build-essential debhelper dh-python lintian autopkgtest gpg gpg-agent man-db \
  python3 python3-venv python3-pip $(WINDOWS) \
  e2fsprogs xfsprogs btrfs-progs strace valgrind kmod mount util-linux util-linux-extra nfs-common systemd systemd-container \
  fdisk dosfstools mtools acl attr libcap2-bin xz-utils zstd openssh-client \
  procps bash-completion curl mmdebstrap debian-archive-keyring busybox-static dnsmasq-base iproute2 \
  nfs-ganesha nfs-ganesha-vfs $(QEMU) $(UML) xfslibs-dev $(CROSS)
# They run on Python 3.11 (Debian 12) and 3.13 (Debian 13).
TOOLS := ruff==0.17.6 mypy==2.4.1 pytest==9.2.0 pytest-xdist==3.8.0 hypothesis==6.170.15

# For a Pi of arm64 on another processor: what runs it, what runs its programs while its root is made, and what compiles
# the one that the tests have in it.
EMULATION := $(if $(filter-out arm64,$(ARCHITECTURE)),qemu-system-arm qemu-user-static arch-test)
COMPILER := $(if $(filter-out arm64,$(ARCHITECTURE)),gcc-aarch64-linux-gnu libc6-dev-arm64-cross)

# What people watch by, unpacked beside the caches and not installed: the packages start daemons, and want a mail server.
WATCHERS := prometheus prometheus-node-exporter nagios4-core monitoring-plugins-common

# For make bench, and for make pictures.
PLOTTERS := python3-pygal
PAINTERS := $(PLOTTERS) python3-rich chromium fonts-dejavu-core

hash = $(firstword $(shell printf '%s' '$(1)' | sha256sum | cut -c -12))
STAMP := $(CACHE)/packages-$(call hash,$(sort $(PACKAGES)))
VENV := $(CACHE)/venv-$(call hash,$(TOOLS) $(WINDOWS) $(shell . /etc/os-release; echo $$VERSION_ID))
PYTHON := $(VENV)/bin/python
UNPACKED := $(CACHE)/watchers-$(call hash,$(WATCHERS) $(shell . /etc/os-release; echo $$VERSION_ID))
# For make mutants alone.
MUTATION := cosmic-ray==8.7.0
MUTANTS_VENV := $(CACHE)/mutants-$(call hash,$(TOOLS) $(MUTATION) $(WINDOWS) $(shell . /etc/os-release; echo $$VERSION_ID))
SAMPLE := 40
DIST := dist
APT_REPO := $(DIST)/apt
APT_URL = file:$(abspath $(APT_REPO))
# test-fresh: the release, and the targets to make on it.
SUITE := bookworm
FRESH := test demo
LINTED := rpinfs tests units/man/build.py debian/repository.py

# An emulated Pi has one processor, and each of the test runner's workers at most two Pis.
JOBS = $(shell nproc)
# Who gets what: tests/conftest.py. ARGS are for pytest, such as make test ARGS="-m 'not lab'".
PYTEST = $(AS_ROOT) RPINFS_DEB="$$(realpath '$(DIST)'/rpinfs_*_all.deb)" RPINFS_WATCHERS='$(UNPACKED)' '$(PYTHON)' -m pytest \
  --numprocesses=$(JOBS) --durations=20 --durations-min=30 $(ARGS)

# A Python environment, where it is missing: $(1) its folder, $(2) what pip installs in it.
define environment
	if [ ! -e '$(1)/complete' ]; then
	    rm -rf '$(1)'
	    /usr/bin/python3 -m venv '$(1)'
	    '$(1)/bin/python' -m pip --quiet --disable-pip-version-check install $(2)
	    dpkg-query --listfiles $(WINDOWS) | grep -E '^/usr/lib/python3/dist-packages/[^/]+$$' |
	        xargs ln --symbolic --target-directory="$$(echo '$(1)'/lib/python3.*/site-packages)"
	    touch '$(1)/complete'
	fi
endef

# Debian packages of one target alone, where they are missing; where it wants none, that is nothing.
define installed
	test -z '$(strip $(1))' || dpkg-query -W $(1) >/dev/null 2>&1 ||
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(1)
endef

.PHONY: help packages deps venv watchers deb lint test test-fast test-fresh mutants test-crash test-lab test-arm64 demo bench pictures clean

help: ## show this
	@sed -nE 's/^([a-z0-9-]+):.* ## (.*)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r target text; do
	    printf '  make %-10s %s\n' "$$target" "$$text"
	done

deps: ## install the Debian packages that everything here needs
	@test ! -e '$(STAMP)' || dpkg-query -W $(PACKAGES) >/dev/null 2>&1 || rm -f '$(STAMP)'
	if [ ! -e '$(STAMP)' ]; then
	    $(SUDO) apt-get update
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-upgrade --no-install-recommends $(PACKAGES)
	    mkdir -p '$(CACHE)'
	    touch '$(STAMP)'
	fi

venv: deps ## make the Python environment with the linters and pytest, outside of the tree
	@$(call environment,$(VENV),$(TOOLS))

watchers: deps
	@if [ ! -e '$(UNPACKED)' ]; then
	    work=$$(mktemp -d)
	    trap 'rm -rf "$$work"' EXIT
	    # In Debian 13 a package of its own.
	    promtool=$$(apt-cache --names-only search '^promtool$$' | cut -d ' ' -f 1)
	    (cd "$$work" && apt-get download $(WATCHERS) $$promtool) >&2
	    for deb in "$$work"/*.deb; do dpkg-deb --extract "$$deb" "$$work/root"; done
	    mkdir -p '$(CACHE)'
	    cp -a "$$work/root" '$(UNPACKED)'.$$$$
	    mv -T '$(UNPACKED)'.$$$$ '$(UNPACKED)'
	fi
	echo '$(UNPACKED)'

# The build runs in a copy of what git tracks or would track, so that nothing is left in the tree or beside it.
# A clone that belongs to somebody else is fine: root may build it.
deb: deps ## build the Debian package into dist/
	@work=$$(mktemp -d)
	trap 'rm -rf "$$work"' EXIT
	mkdir -p '$(DIST)' "$$work/rpinfs"
	git -c safe.directory='$(CURDIR)' ls-files -z --cached --others --exclude-standard |
	    while IFS= read -r -d '' file; do
	        if [ -e "$$file" ] || [ -L "$$file" ]; then printf '%s\0' "$$file"; fi
	    done |
	    tar --create --null --files-from=- | tar --extract --directory="$$work/rpinfs"
	if ! (cd "$$work/rpinfs" && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS dpkg-buildpackage --build=binary --no-sign) \
	    >"$$work/log" 2>&1; then
	    cat "$$work/log" >&2
	    exit 1
	fi
	rm -f '$(DIST)'/rpinfs_*_all.deb
	cp "$$work"/rpinfs_*_all.deb '$(DIST)'
	ls '$(DIST)'/rpinfs_*_all.deb

# Where no KEY is named, one is made for this user, and used again.
apt-repo: deb ## put the package into a signed apt repository; APT_REPO=FOLDER APT_URL=http://NAS/FOLDER KEY=of-gpg
	@/usr/bin/python3 -IB debian/repository.py '$(APT_REPO)' '$(DIST)'/rpinfs_*_all.deb --url '$(APT_URL)' $(if $(KEY),--key '$(KEY)')

lint: venv ## ruff and mypy
	@'$(PYTHON)' -m ruff check $(LINTED)
	'$(PYTHON)' -m ruff format --check $(LINTED)
	'$(PYTHON)' -m mypy $(LINTED)

test: venv deb lint watchers ## package, linters, tests of everything with the lab's boots (root)
	@$(PYTEST)

test-crash: export RPINFS_ALL_POINTS := 1
test-crash: venv deb watchers ## every crash point, every failing call, all power cuts (root; hours)
	@$(PYTEST) -m crash

test-lab: export RPINFS_ALL_POINTS := 1
test-lab: venv deb watchers ## all that the lab can do, each round of it (root; hours)
	@$(PYTEST) -m '(lab or long) and not arm64'

# One at a time: time limits on a Pi run on however slow its processor is, and QEMU's Pi 3 keeps four of ours busy. Beside
# that, on two, the mounts of another Pi timed out.
test-arm64: JOBS := 1
test-arm64: export RPINFS_ALL_POINTS := 1
test-arm64: export RPINFS_LAB_ARCH := arm64
test-arm64: venv deb watchers ## a Pi of arm64: boots, containers, a power cut; on any processor (root; an hour)
	@$(call installed,$(EMULATION) $(COMPILER))
	$(PYTEST) -m arm64

test-fresh: deps ## make test and make demo on a Debian made from nothing, SUITE=bookworm or trixie (root; an hour)
	@$(AS_ROOT) python3 -m tests.fresh --suite '$(SUITE)' $(FRESH) $(if $(ARGS),"ARGS=$(ARGS)")

test-fast: venv ## the tests that need neither root nor the lab
	@'$(PYTHON)' -m pytest -m 'not root and not lab'

mutants: deps deb ## put small errors in, and say which the tests miss; ROOM=agent MODULE=decide SAMPLE=40 SEED=1 (root; hours for all)
	@$(call environment,$(MUTANTS_VENV),$(TOOLS) $(MUTATION))
	$(AS_ROOT) RPINFS_DEB="$$(realpath '$(DIST)'/rpinfs_*_all.deb)" '$(MUTANTS_VENV)/bin/python' -m tests.mutants \
	    $(if $(ROOM),--room $(ROOM)) $(if $(MODULE),--module $(MODULE)) $(if $(SEED),--seed $(SEED)) --sample $(SAMPLE)

demo: deb ## boot an emulated Pi for the first time, up to a running container; ARCH=arm64 on any processor (root)
	@$(call installed,$(if $(filter arm64,$(ARCH)),$(EMULATION)))
	$(AS_ROOT) python3 -m tests.lab.demo --deb '$(DIST)'/rpinfs_*_all.deb $(addprefix --arch ,$(ARCH))

bench: deb ## what rpinfs costs and saves, into tests/bench/RESULTS.md; AREA=boot, docker, first, rest, scale or storage alone (root)
	@$(call installed,$(PLOTTERS))
	$(AS_ROOT) python3 -m tests.bench --deb '$(DIST)'/rpinfs_*_all.deb --keep $(addprefix --area ,$(AREA))

pictures: deb watchers ## take the pictures of README from a run in the lab, into docs/pictures (root; half an hour)
	@$(call installed,$(PAINTERS))
	$(AS_ROOT) python3 -m tests.pictures --deb '$(DIST)'/rpinfs_*_all.deb --watchers '$(UNPACKED)'

# For tests/origin.py and test-fresh.
packages:
	@echo $(PACKAGES) $(if $(RPINFS_LAB_ARCH),$(EMULATION) $(COMPILER))

clean: ## remove what was built; the caches in ~/.cache/rpinfs stay
	@rm -rf dist debian/man debian/rpinfs debian/.debhelper debian/files debian/*.substvars debian/*.debhelper \
	    debian/debhelper-build-stamp .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
