// SPDX-License-Identifier: GPL-2.0-only
/*
 * PID 1 of both kernels of the crash test. In the first kernel it loads the
 * crash kernel, sets DMA going, tells where that DMA will land and panics. In
 * the crash kernel (which has /proc/vmcore) it brings the devices up, saves the
 * vmcore and powers off.
 *
 * In a distribution it is a program, `crash-workload workload`, of the crashing
 * kernel alone: the distribution's kdump has loaded the crash kernel and saves.
 *
 * On a server there is no host to talk to, and the file of the blocks is on a disk that
 * is as fast as it is: `crash-workload server FILE READS FACTS NONCE [rehearse]`.
 * Its facts, the lines "ledger" and "buffer" below, go to the file FACTS. What it finds
 * at the panic has no time to get to a disk: it stays in memory, in the ledger.
 *
 * It talks to the host over a virtio-serial port of its own, one line a fact,
 * and repeats every line on the console for the reader:
 *
 *	hello first|crash RELEASE CLOCK PAGE ID
 *					the kernel's, in milliseconds; bytes of a page; its
 *					build ID; host answers:
 *					reads=N wait=MS moment=NAME more=N cmdline=TEXT
 *	crash-memory START END		what is reserved for the crash kernel, which
 *					later tells what it has
 *	memory KIB			MemAvailable in the crash kernel, before its devices are up
 *	ring base=.. head=.. tail=.. size=..
 *	buffer INDEX PHYS:LEN ...	physical memory of read INDEX, in order
 *	ledger PHYS:LEN ...		NONCE, 8 bytes; then a byte for each read: did its
 *					last word come before the panic?
 *	more-disk STREAMID		one of the `more=` other disks, which is read, too; the
 *					StreamID that it has if no bridge gives it another
 *	waited MS			before the panic, as wait= says
 *	done INDEX			this read was complete before the panic
 *	storm COUNT			so many mappings were made and gone in the last 100 ms
 *	panic				host answers: go, or go INDEX VALUE to
 *					damage that L1 stream-table descriptor,
 *					or chaos SEED COUNT
 *	damaged				that is done: now comes the panic
 *	saving				makedumpfile starts
 *	more-read STREAMID		the crash kernel has read that other disk
 *	vmcore STATUS BYTES MILLISECONDS
 *	dmesg STATUS PANIC-FOUND
 *	shutdown			host answers: go
 *	error TEXT			given up
 *
 * The disk "slow" holds the expected pattern: 64-bit word number i of block
 * INDEX is NONCE << 32 | INDEX << 16 | i; the guest needs not know it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/ethtool.h>
#include <linux/fs.h>
#include <linux/smmu-kdump-test.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE	(128 << 10)
#define MAX_READS	256
#define PER_QUEUE	1000	/* reads; a hardware queue of the NVMe driver takes 1023 */
#define UNTOUCHED	0xaaaaaaaaaaaaaaaaULL
#define RX_RING		4096
#define RX_WARM_UP	64	/* frames that prove the stream flows */
#define WAIT_MS		20000
#define MAX_MORE	16
#define MORE_SIZE	4096
#define READ_S		5	/* for another disk to come in the crash kernel, and for a read of it */
#define MIN_STORM	100	/* mappings that prove that it blows */
#define STORMY		4	/* processes that map: one is always about it */

/* e1000e registers of receive queue 0 */
#define RDBAL		0x2800
#define RDBAH		0x2804
#define RDLEN		0x2808
#define RDH		0x2810
#define RDT		0x2818
#define RDTR		0x2820	/* receive interrupt delay */
#define RADV		0x282c

/* On the crash kernel's command line: it has no driver for the network card */
#define NO_NIC		"initcall_blacklist=e1000_init_module"
/* On the crashed kernel's: kexec_load() in place of kexec_file_load() */
#define KEXEC_LOAD	"kexec_load"

static int channel = -1;
static int on_server;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void nap(void)
{
	usleep(10000);
}

static void say(const char *fmt, ...)
{
	char line[4096];
	va_list ap;
	int len, sent;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	if (len < 0 || len >= (int)sizeof(line) - 1)
		len = sizeof(line) - 2;
	line[len++] = '\n';

	for (int done = 0; channel >= 0 && done < len; done += sent) {
		sent = write(channel, line + done, len - done);
		if (sent < 0) {
			if (errno != EINTR && errno != EAGAIN)
				break;
			sent = 0;
			nap();
		}
	}
	if (!on_server)
		dprintf(STDOUT_FILENO, "crash-test: %.*s", len, line);
}

static int write_file(const char *path, const char *text)
{
	ssize_t len = strlen(text);
	int fd = open(path, O_WRONLY);
	int ret = fd >= 0 && write(fd, text, len) == len ? 0 : -1;

	if (fd >= 0)
		close(fd);
	return ret;
}

/*
 * The kernel says "Power down" between the SMMU's shutdown and the machine's. Hold
 * it there for a while, in which DMA of a device that nobody stopped meets GBPA.
 */
static void power_off(void)
{
	write_file("/proc/sys/kernel/printk_delay", "100");
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void give_up(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (on_server) {
		dprintf(STDERR_FILENO, "error: %s (%s)\n", text, strerror(errno));
		exit(1);
	}
	say("error %s (%s)", text, strerror(errno));
	usleep(200000);		/* let the host read it */
	power_off();
}

/* The host's answer, or "" when it gives none: a replay has no host. */
static const char *hear(void)
{
	static char line[2048];
	struct pollfd pfd = { .fd = channel, .events = POLLIN };
	size_t len = 0;

	while (len < sizeof(line) - 1 && poll(&pfd, 1, 3000) > 0) {
		if (read(channel, line + len, 1) != 1) {
			nap();	/* the host's end is closed */
			break;
		}
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = '\0';
	return line;
}

static int read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return -1;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len < 0)
		return -1;
	while (len && (buf[len - 1] == '\n' || buf[len - 1] == ' '))
		len--;
	buf[len] = '\0';
	return 0;
}

/* Is this directory entry no device's, or a path of a disk that has several, which has no node in /dev? */
static int skipped(const char *dir, const char *name)
{
	char path[1024], text[8];

	snprintf(path, sizeof(path), "%s/%s/hidden", dir, name);
	return name[0] == '.' || (!read_file(path, text, sizeof(text)) && !strcmp(text, "1"));
}

/*
 * The entry of @dir whose @attr (a file below it) reads @want; with @attr NULL
 * any entry that does not begin with @want. Waits for it: drivers probe late.
 */
static const char *find(const char *dir, const char *attr, const char *want)
{
	static char name[256];
	uint64_t end = now_ms() + WAIT_MS;
	char path[1024], text[256];
	struct dirent *entry;
	DIR *handle;

	do {
		handle = opendir(dir);
		while (handle && (entry = readdir(handle))) {
			if (skipped(dir, entry->d_name))
				continue;
			snprintf(path, sizeof(path), "%s/%s/%s", dir, entry->d_name,
				 attr ? attr : "");
			if (attr ? !read_file(path, text, sizeof(text)) && !strcmp(text, want) :
				   !!strncmp(entry->d_name, want, strlen(want))) {
				snprintf(name, sizeof(name), "%s", entry->d_name);
				closedir(handle);
				return name;
			}
		}
		if (handle)
			closedir(handle);
		nap();
	} while (now_ms() < end);
	errno = ENODEV;
	give_up("nothing in %s is %s", dir, attr ? want : "there");
	return NULL;
}

static const char *disk(const char *serial)
{
	static char path[300];

	snprintf(path, sizeof(path), "/dev/%s", find("/sys/block", "device/serial", serial));
	return path;
}

/* Run a program to its end; its output goes to @out, or to the console. */
static int run(const char *out, char *const argv[])
{
	int status, fd;
	pid_t pid = fork();

	if (!pid) {
		if (out) {
			fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
			if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0)
				_exit(126);
		}
		execv(argv[0], argv);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		give_up("cannot run %s", argv[0]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static const char *nic_up(void)
{
	struct ethtool_ringparam ring = { .cmd = ETHTOOL_GRINGPARAM };
	int fd = socket(AF_PACKET, SOCK_RAW, 0);
	static char name[IFNAMSIZ];
	struct ifreq ifr = { };

	snprintf(name, sizeof(name), "%s", find("/sys/class/net", NULL, "lo"));
	strcpy(ifr.ifr_name, name);
	ifr.ifr_data = (void *)&ring;
	if (fd < 0 || ioctl(fd, SIOCETHTOOL, &ifr))
		give_up("%s: no ring parameters", name);
	ring.cmd = ETHTOOL_SRINGPARAM;
	ring.rx_pending = ring.rx_max_pending < RX_RING ? ring.rx_max_pending : RX_RING;
	if (ioctl(fd, SIOCETHTOOL, &ifr))
		give_up("%s: cannot make the receive ring long", name);
	ifr.ifr_flags = IFF_UP | IFF_PROMISC;
	if (ioctl(fd, SIOCSIFFLAGS, &ifr))
		give_up("%s: cannot bring it up", name);
	close(fd);
	return name;
}

static void nic_warm_up(const char *name)
{
	uint64_t end = now_ms() + WAIT_MS;
	char path[256], text[32] = "";

	snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/rx_packets", name);
	while (read_file(path, text, sizeof(text)) || atol(text) < RX_WARM_UP) {
		if (now_ms() > end)
			give_up("%s received %s frames, not %d", name, text, RX_WARM_UP);
		nap();
	}
}

static volatile uint32_t *nic_registers(const char *name)
{
	volatile uint32_t *regs;
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/net/%s/device/resource0", name);
	fd = open(path, O_RDWR | O_SYNC);
	regs = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || regs == MAP_FAILED)
		give_up("cannot map %s", path);
	close(fd);
	return regs;
}

/*
 * A child: until the panic no receive interrupt is delayed. QEMU's model asserts that none
 * is pending when the crash kernel's driver switches to MSI-X, and about one run in ten
 * ended there. The driver's watchdog delays them again, every two seconds.
 */
static void no_delay(volatile uint32_t *regs)
{
	pid_t pid = fork();

	if (pid < 0)
		give_up("cannot watch the network card");
	while (!pid) {
		regs[RDTR / 4] = 0;
		regs[RADV / 4] = 0;
		usleep(1000);
	}
}

/* Where the receive ring stands */
static void tell_ring(volatile uint32_t *regs)
{
	/* The tail first: it follows the head, and both are moving */
	uint32_t tail = regs[RDT / 4], head = regs[RDH / 4];

	say("ring base=0x%llx head=%u tail=%u size=%u",
	    (unsigned long long)regs[RDBAH / 4] << 32 | regs[RDBAL / 4], head, tail,
	    regs[RDLEN / 4] / 16);
}

static uint64_t phys_of(int pagemap, const void *addr)
{
	long page = sysconf(_SC_PAGESIZE);
	uint64_t entry;

	if (pread(pagemap, &entry, 8, (uintptr_t)addr / page * 8) != 8 || !(entry >> 63) ||
	    !(entry << 9 >> 9))
		give_up("no physical address of %p", addr);
	return (entry << 9 >> 9) * page + (uintptr_t)addr % page;
}

/* The physical memory of @buf, as pieces. The sum of the pages' addresses is their fingerprint. */
static uint64_t tell_memory(const char *name, const char *buf, long size)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	long page = sysconf(_SC_PAGESIZE);
	uint64_t phys, start = 0, sum = 0;
	char line[2048];
	long len = 0;
	int pos = 0;

	for (long off = 0; off <= size; off += page) {
		phys = off < size ? phys_of(pagemap, buf + off) : 0;
		sum += phys;
		if (name && len && phys != start + len) {
			pos += snprintf(line + pos, sizeof(line) - pos, " 0x%llx:0x%lx",
					(unsigned long long)start, len);
			len = 0;
		}
		if (!len)
			start = phys;
		len += page;
	}
	close(pagemap);
	if (name)
		say("%s%s", name, line);
	return sum;
}

static char *locked_memory(size_t size)
{
	char *buf = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);

	if (buf == MAP_FAILED)
		give_up("no memory that can be locked: %zu KiB", size >> 10);
	return memset(buf, 0xaa, size);
}

/* Where read @index will land, told to the host; and how to ask for it */
static struct iocb *prepare_read(int fd, char *buf, int index, struct iocb *iocb)
{
	char name[32];

	*iocb = (struct iocb) {
		.aio_data = index,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)buf + (size_t)index * READ_SIZE,
		.aio_nbytes = READ_SIZE,
		.aio_offset = (uint64_t)index * READ_SIZE,
	};
	snprintf(name, sizeof(name), "buffer %d", index);
	tell_memory(name, buf + (size_t)index * READ_SIZE, READ_SIZE);
	return iocb;
}

static void queue_reads(aio_context_t *ctx, int reads)
{
	static struct iocb iocbs[MAX_READS];
	int fd = open(disk("slow"), O_RDONLY | O_DIRECT);
	struct iocb *list[MAX_READS];
	char *buf;

	if (fd < 0)
		give_up("cannot open the slow disk");
	buf = locked_memory((size_t)reads * READ_SIZE);
	for (int i = 0; i < reads; i++)
		list[i] = prepare_read(fd, buf, i, &iocbs[i]);
	if (syscall(SYS_io_setup, reads, ctx) || syscall(SYS_io_submit, *ctx, reads, list) != reads)
		give_up("cannot queue %d reads", reads);
}

/* bus << 8 | devfn of the PCI device that is nearest above @disk */
static int stream_id(const char *disk)
{
	unsigned int domain, bus, dev, fn;
	char path[300], real[PATH_MAX], *word;
	int found = -1;

	snprintf(path, sizeof(path), "/sys/block/%s", disk);
	if (realpath(path, real))
		for (word = strtok(real, "/"); word; word = strtok(NULL, "/"))
			if (sscanf(word, "%4x:%2x:%2x.%1x", &domain, &bus, &dev, &fn) == 4)
				found = bus << 8 | dev << 3 | fn;
	if (found < 0)
		give_up("%s is behind no PCI device", disk);
	return found;
}

/*
 * As many reads of a disk that is neither the slow one nor for the dump. They are
 * short, and far from each other, so that they are not merged. All land in @buf.
 */
static void queue_more_reads(const char *path, int reads, char *buf)
{
	static struct iocb iocbs[MAX_READS];
	struct iocb *list[MAX_READS];
	int fd = open(path, O_RDONLY | O_DIRECT);
	aio_context_t ctx = 0;

	for (int i = 0; i < reads; i++) {
		iocbs[i] = (struct iocb) {
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_fildes = fd,
			.aio_buf = (uintptr_t)buf,
			.aio_nbytes = MORE_SIZE,
			.aio_offset = (uint64_t)i * READ_SIZE,
		};
		list[i] = &iocbs[i];
	}
	if (fd < 0 || syscall(SYS_io_setup, reads, &ctx) ||
	    syscall(SYS_io_submit, ctx, reads, list) != reads)
		give_up("cannot queue %d reads of %s", reads, path);
	say("more-disk 0x%x", stream_id(path + strlen("/dev/")));
}

/* All disks but the slow one and that for the dump; waits so long for @count of them */
static int more_disks(char paths[MAX_MORE][300], int count, int wait_ms)
{
	uint64_t end = now_ms() + wait_ms;
	char path[300], serial[64];
	struct dirent *entry;
	int found = 0;
	DIR *handle;

	do {
		handle = opendir("/sys/block");
		for (found = 0; handle && (entry = readdir(handle)) && found < MAX_MORE; ) {
			snprintf(path, sizeof(path), "/sys/block/%s/device/serial", entry->d_name);
			if (skipped("/sys/block", entry->d_name) || !strncmp(entry->d_name, "loop", 4) ||
			    !strncmp(entry->d_name, "ram", 3))
				continue;
			if (!read_file(path, serial, sizeof(serial)) &&
			    (!strcmp(serial, "slow") || !strcmp(serial, "dump")))
				continue;
			snprintf(paths[found++], sizeof(paths[0]), "/dev/%s", entry->d_name);
		}
		if (handle)
			closedir(handle);
		nap();
	} while (found != count && now_ms() < end);
	return found;
}

static void queue_more(int count, int reads)
{
	char paths[MAX_MORE][300], *buf;
	int found = count ? more_disks(paths, count, WAIT_MS) : 0;

	if (found != count)
		give_up("%d more disks, not %d", found, count);
	if (!count)
		return;
	buf = locked_memory(MORE_SIZE);
	for (int i = 0; i < count; i++)
		queue_more_reads(paths[i], reads, buf);
}

/* Can the crash kernel use them, too? It may wait for ever for one that is dead. */
static void read_more(int count)
{
	struct timespec limit = { .tv_sec = READ_S };
	char paths[MAX_MORE][300], *buf;
	int found;

	if (!count)
		return;
	found = more_disks(paths, count, READ_S * 1000);
	buf = locked_memory(MORE_SIZE);
	for (int i = 0; i < found; i++) {
		struct iocb iocb = {
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_fildes = open(paths[i], O_RDONLY | O_DIRECT),
			.aio_buf = (uintptr_t)buf,
			.aio_nbytes = MORE_SIZE,
		}, *list[] = { &iocb };
		aio_context_t ctx = 0;
		struct io_event event;

		if (!syscall(SYS_io_setup, 1, &ctx) && syscall(SYS_io_submit, ctx, 1, list) == 1 &&
		    syscall(SYS_io_getevents, ctx, 1, 1, &event, &limit) == 1 &&
		    event.res == MORE_SIZE)
			say("more-read 0x%x", stream_id(paths[i] + strlen("/dev/")));
	}
}

static void tell_done(aio_context_t ctx, int reads)
{
	struct io_event events[MAX_READS];
	struct timespec none = { };
	int count = syscall(SYS_io_getevents, ctx, 0, reads, events, &none);

	for (int i = 0; i < count; i++) {
		if (events[i].res != READ_SIZE)
			give_up("read %d: %lld", (int)events[i].data, (long long)events[i].res);
		say("done %d", (int)events[i].data);
	}
}

static void tell_crash_memory(const char *what)
{
	FILE *file = fopen("/proc/iomem", "r");
	unsigned long long start, end;
	char line[256];
	int found = 0;

	while (file && fgets(line, sizeof(line), file)) {
		if (strstr(line, what) &&
		    sscanf(line, " %llx-%llx", &start, &end) == 2 && end) {
			say("crash-memory 0x%llx 0x%llx", start, end);
			found++;
		}
	}
	if (!found)
		give_up("no memory is reserved for a crash kernel");
	fclose(file);
}

static int has_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "r");
	char line[1024];
	int found = 0;

	while (file && !found && fgets(line, sizeof(line), file))
		found = !!strstr(line, text);
	if (file)
		fclose(file);
	return found;
}

/* With no command line only see that it is loaded. */
static void load_crash_kernel(const char *cmdline)
{
	char *how = has_text("/proc/cmdline", KEXEC_LOAD) ? "-c" : "-s";
	char arg[2100], loaded[8];
	int status;

	snprintf(arg, sizeof(arg), "--command-line=%s", cmdline ?: "");
	status = !cmdline ? 0 :
		 run(NULL, (char *[]){ "/sbin/kexec", how, "-p", "/crash/Image",
				       "--initrd=/crash/initrd", arg, NULL });
	if (status || read_file("/sys/kernel/kexec_crash_loaded", loaded, sizeof(loaded)) ||
	    strcmp(loaded, "1"))
		give_up(cmdline ? "kexec cannot load the crash kernel: status %d" :
				  "kdump has loaded no crash kernel", status);
}

static void stay_on(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		give_up("there is no processor %d", cpu);
}

/*
 * Until the panic, on processor 1, while this one stays on 0: a mapping is made and gone
 * with each read. While one process waits for its read another maps or unmaps. How many
 * reads there have been is counted in the memory that is returned.
 */
static volatile uint32_t *storm(void)
{
	int fd = open(disk("dump"), O_RDONLY | O_DIRECT);
	uint64_t end = now_ms() + WAIT_MS;
	char *buf = mmap(NULL, READ_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile uint32_t *count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = 1;

	if (fd < 0 || buf == MAP_FAILED || count == MAP_FAILED)
		give_up("cannot begin the storm");
	stay_on(1);
	for (int i = 0; i < STORMY && pid > 0; i++)
		pid = fork();
	for (; !pid; __sync_fetch_and_add(count, 1))
		if (pread(fd, buf, READ_SIZE, 0) != READ_SIZE)
			_exit(1);
	stay_on(0);
	if (pid < 0)
		give_up("cannot begin the storm");
	while (*count < MIN_STORM) {
		if (now_ms() > end)
			give_up("the storm has made %u mappings, not %d", *count, MIN_STORM);
		nap();
	}
	return count;
}

static void first_kernel(int reads, int wait_ms, const char *moment, int more, const char *cmdline)
{
	int suspended = !strcmp(moment, "suspend");
	volatile uint32_t *mappings = NULL, *regs;
	const char *nic, *answer;
	aio_context_t ctx = 0;
	uint64_t begin;
	uint32_t before;

	tell_crash_memory(": Crash kernel");
	nic = nic_up();		/* its link takes a while to come up */
	load_crash_kernel(cmdline);
	nic_warm_up(nic);
	regs = nic_registers(nic);
	no_delay(regs);
	if (suspended) {	/* it may have no registers then */
		tell_ring(regs);
		if (write_file(SMMU_KDUMP_TEST_MOMENT, moment))
			give_up("cannot suspend %s", nic);
	}
	queue_more(more, reads);
	queue_reads(&ctx, reads);
	if (!strcmp(moment, "storm"))
		mappings = storm();
	begin = now_ms();
	usleep(wait_ms * 1000);
	say("waited %llu", (unsigned long long)(now_ms() - begin));
	if (!suspended)
		tell_ring(regs);
	tell_done(ctx, reads);
	if (mappings) {		/* it blows still */
		before = *mappings;
		usleep(100000);
		say("storm %u", *mappings - before);
	}
	say("panic");
	answer = hear();
	if (!strncmp(answer, "go ", 3) && write_file(SMMU_KDUMP_TEST_DAMAGE_L1, answer + 3))
		give_up("cannot damage the stream table: %s", answer + 3);
	if (!strncmp(answer, "chaos ", 6) && write_file(SMMU_KDUMP_TEST_CHAOS, answer + 6))
		give_up("cannot damage the stream table: %s", answer + 6);
	if (strcmp(answer, "go"))
		say("damaged");		/* which took a while */
	if (!strcmp(moment, "hang") &&
	    (write_file("/proc/sys/kernel/hung_task_timeout_secs", "1") ||
	     write_file("/proc/sys/kernel/hung_task_panic", "1")))
		give_up("this kernel looks for no hung task");
	if (strcmp(moment, "none") && strcmp(moment, "storm") && !suspended)
		write_file(SMMU_KDUMP_TEST_MOMENT, moment);
	else
		write_file("/proc/sysrq-trigger", "c");
	give_up("cannot panic");
}

static void memory(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[256];
	long long kib;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %lld", &kib) == 1)
			say("memory %lld", kib);
	if (file)
		fclose(file);
}

static void crash_kernel(const char *level, int more)
{
	uint64_t begin = now_ms();
	char target[300], arg[16];
	int fd, status;
	off_t bytes;

	memory();
	tell_crash_memory(": System RAM");	/* crashkernel=,cma is more than was reserved */
	if (!has_text("/proc/cmdline", NO_NIC))
		nic_up();
	disk("slow");
	snprintf(target, sizeof(target), "%s", disk("dump"));
	snprintf(arg, sizeof(arg), "-d%s", level);

	say("saving");
	/*
	 * ELF, straight onto the disk: the host reads the very bytes that went
	 * through the SMMU. The end of the file is the highest segment's.
	 */
	status = run("/makedumpfile.log",
		     (char *[]){ "/usr/bin/makedumpfile", "-E", "-f", arg, "--message-level=6",
				 "/proc/vmcore", target, NULL });
	fd = open(target, O_RDONLY);
	if (fd < 0 || fsync(fd) || ioctl(fd, BLKFLSBUF, 0))
		status = status ?: 1;
	bytes = lseek(fd, 0, SEEK_END);
	close(fd);
	say("vmcore %d %lld %lld", status, (long long)bytes, (long long)(now_ms() - begin));

	status = run("/dev/null", (char *[]){ "/usr/bin/makedumpfile", "--dump-dmesg", "-f",
					      target, "/dmesg", NULL });
	say("dmesg %d %d", status, has_text("/dmesg", "sysrq triggered crash"));
	read_more(more);
	say("shutdown");
	hear();
	power_off();
}

static int landed(const char *buf, int index)
{
	const char *end = buf + (size_t)(index + 1) * READ_SIZE;

	return ((const volatile uint64_t *)end)[-1] != UNTOUCHED;
}

/* All reads at once, the same share from each processor: each has a hardware queue of its own */
static void submit(struct iocb **list, int reads)
{
	int cpus = 0, share, done = 0;
	aio_context_t ctx = 0;
	cpu_set_t all;

	if (syscall(SYS_io_setup, reads, &ctx))
		give_up("cannot prepare %d reads; see /proc/sys/fs/aio-max-nr", reads);
	sched_getaffinity(0, sizeof(all), &all);
	share = (reads + CPU_COUNT(&all) - 1) / CPU_COUNT(&all);
	if (share > PER_QUEUE) {
		errno = EINVAL;
		give_up("%d reads are too many: at most %d for each processor", reads, PER_QUEUE);
	}
	for (int cpu = 0; cpu < CPU_SETSIZE && done < reads; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		stay_on(cpu);
		for (int end = ++cpus * share; done < end && done < reads; ) {
			int count = (end < reads ? end : reads) - done;

			count = syscall(SYS_io_submit, ctx, count, list + done);
			if (count <= 0)
				give_up("cannot queue read %d", done);
			done += count;
		}
	}
}

/* How long the reads last, without a panic */
static void rehearse(const char *buf, int reads, int flying)
{
	uint64_t begin = now_ms();
	int left = flying;

	while (left && now_ms() - begin < WAIT_MS) {
		left = 0;
		for (int i = 0; i < reads; i++)
			left += !landed(buf, i);
	}
	printf("%d of %d reads were in flight; %d milliseconds later %d still were\n", flying, reads,
	       (int)(now_ms() - begin), left);
	exit(0);
}

static void server(int argc, char **argv)
{
	int fd = open(argv[2], O_RDONLY | O_DIRECT), reads = atoi(argv[3]), flying = 0;
	struct iocb *iocbs = calloc(reads, sizeof(*iocbs)), **list = calloc(reads, sizeof(*list));
	uint64_t nonce = strtoull(argv[5], NULL, 0), sum = 0;
	long page = sysconf(_SC_PAGESIZE), length = (8 + reads + page - 1) / page * page;
	char *buf, *ledger;

	on_server = 1;
	channel = open(argv[4], O_WRONLY);
	if (fd < 0 || channel < 0 || reads <= 0 || !iocbs || !list)
		give_up("cannot open %s or %s", argv[2], argv[4]);
	buf = locked_memory((size_t)reads * READ_SIZE);
	ledger = locked_memory(length);
	memcpy(ledger, &nonce, sizeof(nonce));
	tell_memory("ledger", ledger, length);
	for (int i = 0; i < reads; i++)
		list[i] = prepare_read(fd, buf, i, &iocbs[i]);
	sum = tell_memory(NULL, ledger, length) + tell_memory(NULL, buf, (long)reads * READ_SIZE);
	if (fsync(channel))
		give_up("cannot write %s", argv[4]);

	submit(list, reads);
	if (sum != tell_memory(NULL, ledger, length) + tell_memory(NULL, buf, (long)reads * READ_SIZE))
		give_up("the kernel has moved the buffers meanwhile");
	for (int i = 0; i < reads; i++) {
		ledger[8 + i] = landed(buf, i);
		flying += !ledger[8 + i];
	}
	if (argc > 6)
		rehearse(buf, reads, flying);
	write_file("/proc/sysrq-trigger", "c");
	give_up("cannot panic");
}

/* `key=value` of the host's answer; cmdline= comes last and has spaces. */
static const char *param(const char *params, const char *key, const char *fallback)
{
	const char *at = strstr(params, key);

	return at ? at + strlen(key) : fallback;
}

/* The running kernel's, in hexadecimal digits; "-" if it has none */
static const char *build_id(void)
{
	struct { uint32_t name_size, size, type; } note;
	FILE *file = fopen("/sys/kernel/notes", "r");
	unsigned char name[32], id[64];
	static char text[2 * sizeof(id) + 1] = "-";

	while (file && fread(&note, sizeof(note), 1, file) == 1) {
		note.name_size = (note.name_size + 3) & ~3U;
		note.size = (note.size + 3) & ~3U;
		if (note.name_size > sizeof(name) || note.size > sizeof(id) ||
		    fread(name, 1, note.name_size, file) != note.name_size ||
		    fread(id, 1, note.size, file) != note.size)
			break;
		if (note.type != NT_GNU_BUILD_ID || memcmp(name, "GNU", 4))
			continue;
		for (unsigned int i = 0; i < note.size; i++)
			sprintf(text + 2 * i, "%02x", id[i]);
	}
	if (file)
		fclose(file);
	return text;
}

static void mount_all(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mkdir("/tmp", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
}

int main(int argc, char **argv)
{
	int crashed, program = argc > 1 && !strcmp(argv[1], "workload");
	char params[2048], moment[16] = "none", path[300];
	struct utsname uts;

	if (argc > 5 && !strcmp(argv[1], "server"))
		server(argc, argv);
	if (!program)
		mount_all();
	signal(SIGPIPE, SIG_IGN);

	snprintf(path, sizeof(path), "/dev/%s", find("/sys/class/virtio-ports", "name", "verdict"));
	channel = open(path, O_RDWR);
	uname(&uts);
	crashed = !access("/proc/vmcore", F_OK);
	say("hello %s %s %llu %ld %s", crashed ? "crash" : "first", uts.release,
	    (unsigned long long)now_ms(), sysconf(_SC_PAGESIZE), build_id());
	snprintf(params, sizeof(params), "%s", hear());
	if (crashed)
		crash_kernel("17", atoi(param(params, "more=", "0")));
	sscanf(param(params, "moment=", "none"), "%15s", moment);
	first_kernel(atoi(param(params, "reads=", "32")), atoi(param(params, "wait=", "0")), moment,
		     atoi(param(params, "more=", "0")), program ? NULL :
		     param(params, "cmdline=",
			   "console=ttyAMA0 ignore_loglevel nr_cpus=1 reset_devices"));
	return 0;
}
