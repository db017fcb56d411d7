/* A container that trusts its disk: appends numbered, checksummed records, and acknowledges each over the network once
 * fsync() has returned. Every eighth record is a file of its own as well, fsynced with its folder: a create and a rename.
 *
 * Usage: writer FOLDER ADDRESS PORT [MILLISECONDS]
 *
 * It rests that long after each record: fsync on end takes half of what an emulated processor has.
 * It goes on where it was. records.py knows the form of a record, and reads them back.
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECORD = 64, EVERY = 8 };

static void stop(int signal)
{
	(void)signal;
	_exit(0);
}

static uint64_t fnv1a(const char *text, size_t length)
{
	uint64_t hash = 0xcbf29ce484222325;

	while (length--)
		hash = (hash ^ (unsigned char)*text++) * 0x100000001b3;
	return hash;
}

static void make_record(char *record, uint64_t number)
{
	char digits[17];

	snprintf(digits, sizeof digits, "%016" PRIu64, number);
	memset(record, '.', RECORD);
	memcpy(record, digits, 16);
	snprintf(record + 16, 18, " %016" PRIx64, fnv1a(digits, 16));
	record[33] = ' ';
	record[RECORD - 1] = '\n';
}

static void write_synced(int file, const char *record, const char *name)
{
	if (write(file, record, RECORD) != RECORD)
		err(1, "%s: write", name);
	if (fsync(file))
		err(1, "%s: fsync", name);
}

static void write_as_file(int folder, const char *record, uint64_t number)
{
	char name[32];
	int file;

	snprintf(name, sizeof name, "%" PRIu64, number);
	file = openat(folder, "new", O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (file < 0)
		err(1, "new");
	write_synced(file, record, name);
	close(file);
	if (renameat(folder, "new", folder, name) || fsync(folder))
		err(1, "%s: rename", name);
}

int main(int argc, char **argv)
{
	struct sockaddr_in lab = { .sin_family = AF_INET };
	char record[RECORD];
	uint64_t number;
	int folder, log, acknowledgements, rest;

	if (argc < 4 || argc > 5)
		errx(2, "usage: writer FOLDER ADDRESS PORT [MILLISECONDS]");
	/* The first process of a container has no default actions; Docker would wait ten seconds, then kill it. */
	signal(SIGTERM, stop);
	rest = argc == 5 ? atoi(argv[4]) * 1000 : 0;
	if (chdir(argv[1]))
		err(1, "%s", argv[1]);
	mkdir("files", 0755);
	folder = open("files", O_RDONLY | O_DIRECTORY);
	log = open("log", O_RDWR | O_CREAT | O_APPEND, 0644);
	acknowledgements = socket(AF_INET, SOCK_DGRAM, 0);
	if (folder < 0 || log < 0 || acknowledgements < 0)
		err(1, "%s", argv[1]);
	lab.sin_addr.s_addr = inet_addr(argv[2]);
	lab.sin_port = htons(atoi(argv[3]));
	number = lseek(log, 0, SEEK_END) / RECORD;
	/* What a power cut left of a record that nobody was told of. */
	if (ftruncate(log, number * RECORD))
		err(1, "log: ftruncate");
	for (;;) {
		make_record(record, ++number);
		/* The log last: it tells a writer after a power cut which record is next. */
		if (number % EVERY == 0)
			write_as_file(folder, record, number);
		write_synced(log, record, "log");
		/* An acknowledgement that is lost asks for less, never for too much. */
		sendto(acknowledgements, record, 16, 0, (struct sockaddr *)&lab, sizeof lab);
		usleep(rest);
	}
}
