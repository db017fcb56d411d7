/* Preloaded into QEMU: a flush of a disk takes its time, and is counted.
 *
 * FLUSHES names a file with two 64-bit numbers, mapped: how many flushes there were, and how many microseconds each
 * takes. Nothing is really flushed, as the host's page cache outlives the emulated machine.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t *numbers;

__attribute__((constructor)) static void map(void)
{
    const char *name = getenv("FLUSHES");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        abort();
    numbers = mmap(NULL, 2 * sizeof *numbers, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (numbers == MAP_FAILED)
        abort();
}

int fdatasync(int file)
{
    (void)file;
    __atomic_add_fetch(&numbers[0], 1, __ATOMIC_RELAXED);
    usleep(__atomic_load_n(&numbers[1], __ATOMIC_RELAXED));
    return 0;
}

int fsync(int file)
{
    return fdatasync(file);
}
