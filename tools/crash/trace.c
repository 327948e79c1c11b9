// SPDX-License-Identifier: GPL-2.0-only
/*
 * Read QEMU's SMMUv3 trace once and say, in JSON, what happened to each
 * StreamID and to the control registers.
 *
 * Decided here, as it takes the single access: in which phase of the run it
 * stands, whether it is the crashed kernel's, whether it is an NVMe completion
 * entry, whether it goes into the crash kernel's memory when it must not, and
 * whether the SMMU was on at a register write. All of that is counted. What the
 * counts mean, and which StreamIDs are watched, is the judge's business
 * (judge.py).
 *
 *	trace FILE PANIC SHUTDOWN DOORBELL START-END...
 *
 * PANIC and SHUTDOWN are seconds since the epoch, DOORBELL is the address that
 * devices write interrupts to, START-END the crash kernel's memory (inclusive).
 *
 * A line of the trace is "PID@SECONDS.MICROSECONDS:EVENT text" (QEMU 10) or
 * "YYYY-MM-DDTHH:MM:SS.MICROSECONDSZ EVENT text" (QEMU 11). Fields of the text
 * are found by their name ("sid=0x8", "addr: 0x20", "streamid= 0x8"), as order
 * and company of fields differ between versions. The other lines are QEMU's guest
 * errors; those without a time (QEMU 10) belong where they stand. Anything that
 * looks like a trace line and is not understood is an error, and so is a cut-off
 * last line.
 *
 * Memory is constant: counters for at most MAX_SIDS StreamIDs, and one line.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_SIDS	64
#define MAX_RANGES	8
#define MAX_NAME	80
#define DRAIN_US	20000		/* a reset finishes what is in flight at once */
#define PAGE(addr)	((addr) >> 12)

/* Register offsets within page 0, to which QEMU folds page 1 */
#define CR0		0x20
#define CR1		0x28
#define CR2		0x2c
#define GBPA		0x44
#define STRTAB_BASE	0x80
#define STRTAB_BASE_HI	0x84
#define STRTAB_BASE_CFG	0x88
#define CMDQ_BASE	0x90
#define CR0_SMMUEN	0x1
#define GBPA_ABORT	(1 << 20)
#define GBPA_UPDATE	(1u << 31)

/* Where in the run a line stands, for its StreamID */
enum phase {
	BEFORE,		/* the panic */
	WINDOW,		/* from the panic to the crash kernel's first SMMU register write */
	ADOPTED,	/* from there to the take-over of this StreamID */
	TAKEN,		/* from the take-over to the shutdown */
	END,		/* the shutdown and later */
	PHASES
};

static const char * const phase_name[PHASES] = {
	"before", "window", "adopted", "taken", "end"
};

enum count {
	TRANSLATED, ABORTED, BYPASSED, DISABLED, EVENTS, FAULTS, MISDIRECTED, COUNTS
};

static const char * const count_name[COUNTS] = {
	"translated", "aborted", "bypassed", "disabled", "events", "faults", "misdirected"
};

struct stream {
	uint32_t sid;
	char region[MAX_NAME];		/* QEMU's name of its memory region */
	uint64_t counts[PHASES][COUNTS];
	uint64_t completions;		/* completion entries of an NVMe disk, panic to take-over */
	uint64_t drained;		/* of them, less than DRAIN_US after the one before */
	uint64_t last_completion;
	uint64_t first_dma, last_dma;	/* of the crashed kernel, after the panic */
	uint64_t late;			/* of it, what failed after the take-over */
	bool own;			/* the crash kernel has used it */
	uint64_t take_over;
	bool has_example;		/* of a misdirected translation */
	uint64_t example_iova, example_addr;
};

enum event {
	IGNORED, SUCCESS, DISABLE, BYPASS, ABORT, RECORD, WRITE, CFGI_STE, CFGI_RANGE
};

/*
 * Every event, without PREFIX, in the order of strcmp() for bsearch().
 * propagate_event is QEMU 11's record_event.
 */
#define PREFIX	"smmuv3_"
#define SKIP(name)	{ name, IGNORED }
static const struct known {
	const char *name;
	enum event event;
} known[] = {
	SKIP("accel_install_ste"), SKIP("accel_set_iommu_device"), SKIP("accel_translate_ste"),
	SKIP("accel_unset_iommu_device"), SKIP("cmdq_cfgi_cd"), { "cmdq_cfgi_ste", CFGI_STE },
	{ "cmdq_cfgi_ste_range", CFGI_RANGE }, SKIP("cmdq_consume"), SKIP("cmdq_consume_error"),
	SKIP("cmdq_consume_out"), SKIP("cmdq_opcode"), SKIP("cmdq_tlbi_nh"),
	SKIP("cmdq_tlbi_nh_asid"), SKIP("cmdq_tlbi_nsnh"), SKIP("cmdq_tlbi_s12_vmid"),
	SKIP("config_cache_hit"), SKIP("config_cache_inv"), SKIP("config_cache_miss"),
	SKIP("decode_cd"), SKIP("decode_cd_tt"), SKIP("find_ste"), SKIP("find_ste_2lvl"),
	SKIP("get_cd"), SKIP("get_ste"), SKIP("inv_notifiers_iova"), SKIP("inv_notifiers_vmid"),
	SKIP("notify_flag_add"), SKIP("notify_flag_del"), { "propagate_event", RECORD },
	SKIP("range_inval"), SKIP("read_mmio"), { "record_event", RECORD },
	SKIP("s1_range_inval"), { "translate_abort", ABORT }, { "translate_bypass", BYPASS },
	{ "translate_disable", DISABLE }, { "translate_success", SUCCESS }, SKIP("trigger_irq"),
	SKIP("unhandled_cmd"), SKIP("write_gerror"), SKIP("write_gerrorn"),
	{ "write_mmio", WRITE },
};

#define KNOWN	(sizeof(known) / sizeof(known[0]))

static struct stream streams[MAX_SIDS];
static int nr_streams;
static struct { uint64_t start, end; } crash_memory[MAX_RANGES];
static int nr_ranges;
static uint64_t panic_time, shutdown_time, doorbell;

static uint64_t now, probe_time;
static uint64_t line_number, nr_trace;

static bool enabled;
static uint64_t gbpa;
static bool ended, ended_aborting;	/* SMMUEN was cleared at the shutdown */
static uint64_t cleared_smmuen, wrote_strtab, wrote_cr1, wrote_cr2;

static const char *file_name;

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%" PRIu64 ": ", file_name, line_number);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static int compare_name(const void *name, const void *member)
{
	return strcmp(name, ((const struct known *)member)->name);
}

/* A number at @at, hexadecimal with 0x or decimal; its end, or NULL. */
static const char *number(const char *at, uint64_t *value)
{
	bool hex = at[0] == '0' && at[1] == 'x';
	char *after;

	if (!isxdigit((unsigned char)at[hex ? 2 : 0]))
		return NULL;
	*value = strtoull(at, &after, hex ? 16 : 10);
	return after > at ? after : NULL;
}

/* The value of `key` in a text: key=1, key:1, key: 1 and key= 1 are all in use. */
static uint64_t need(const char *text, const char *key)
{
	size_t len = strlen(key);
	const char *at = text;
	uint64_t value;

	for (; (at = strstr(at, key)); at++) {
		const char *after = at + len;
		bool word = at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');

		if (word && (*after == '=' || *after == ':') &&
		    number(after + 1 + strspn(after + 1, " "), &value))
			return value;
	}
	die("no field `%s' in `%s'", key, text);
}

static struct stream *stream_of(uint32_t sid)
{
	for (int i = 0; i < nr_streams; i++)
		if (streams[i].sid == sid)
			return &streams[i];
	if (nr_streams == MAX_SIDS)
		die("more than %d StreamIDs", MAX_SIDS);
	streams[nr_streams].sid = sid;
	return &streams[nr_streams++];
}

static enum phase phase_of(const struct stream *s)
{
	if (now < panic_time)
		return BEFORE;
	if (now >= shutdown_time)
		return END;
	if (s->take_over)
		return TAKEN;
	return probe_time ? ADOPTED : WINDOW;
}

static bool in_crash_memory(uint64_t addr)
{
	for (int i = 0; i < nr_ranges; i++)
		if (addr >= crash_memory[i].start && addr <= crash_memory[i].end)
			return true;
	return false;
}

/*
 * DMA for the crashed kernel: until the take-over, and what fails after it until
 * the first that succeeds, which is the crash kernel's own.
 */
static void note_dma(struct stream *s, enum phase phase, bool success)
{
	s->own |= phase == TAKEN && success;
	if (phase == BEFORE || phase == END || s->own)
		return;
	if (!s->first_dma)
		s->first_dma = now;
	s->last_dma = now;
	s->late += phase == TAKEN;
}

/* The first word of these events is the name of the memory region. */
static void learn_region(struct stream *s, const char *text)
{
	size_t len = strcspn(text, " ");

	if (!s->region[0] && text[len] && len < MAX_NAME)
		memcpy(s->region, text, len);
}

/* Old accesses stay out of the crash kernel's memory, new ones in it. */
static void check_direction(struct stream *s, enum phase phase, uint64_t iova, uint64_t addr)
{
	if (phase == BEFORE || phase == END || in_crash_memory(addr) == (phase == TAKEN))
		return;
	s->counts[phase][MISDIRECTED]++;
	if (!s->has_example) {
		s->has_example = true;
		s->example_iova = iova;
		s->example_addr = addr;
	}
}

/*
 * What an NVMe controller still does once the CPU is silent: completion entries, 16
 * bytes each, and the completion queue's shadow doorbells, which lie at odd
 * multiples of 4.
 */
static void note_completion(struct stream *s, enum phase phase, uint64_t iova)
{
	if ((phase != WINDOW && phase != ADOPTED) || iova % 16)
		return;
	s->completions++;
	s->drained += s->last_completion && now - s->last_completion < DRAIN_US;
	s->last_completion = now;
}

/* Where an access goes; a bypass of an identity domain must not go astray, either. */
static void note_access(struct stream *s, enum phase phase, uint64_t iova, uint64_t addr)
{
	if (PAGE(addr) != PAGE(doorbell)) {
		note_completion(s, phase, iova);
		check_direction(s, phase, iova, addr);
	}
}

static void translated(struct stream *s, const char *text)
{
	uint64_t addr = need(text, "translated");
	uint64_t iova = need(text, "iova");
	enum phase phase = phase_of(s);

	s->counts[phase][TRANSLATED]++;
	note_dma(s, phase, true);
	note_access(s, phase, iova, addr);
}

static void count(struct stream *s, enum count which)
{
	enum phase phase = phase_of(s);

	s->counts[phase][which]++;
	note_dma(s, phase, which == BYPASSED);
}

static void take_over(struct stream *s)
{
	if (now >= panic_time && now < shutdown_time && !s->take_over)
		s->take_over = now;
}

static void write_register(uint64_t addr, uint64_t val)
{
	bool forbidden = now >= panic_time && enabled;

	switch (addr) {
	case CR0:
		if (forbidden && !(val & CR0_SMMUEN)) {
			if (now < shutdown_time) {
				cleared_smmuen++;
			} else if (!ended) {
				ended = true;
				ended_aborting = gbpa & GBPA_ABORT;
			}
		}
		enabled = val & CR0_SMMUEN;
		break;
	case GBPA:
		if (val & GBPA_UPDATE)
			gbpa = val;
		break;
	case CR1:
		wrote_cr1 += forbidden;
		break;
	case CR2:
		wrote_cr2 += forbidden;
		break;
	case STRTAB_BASE:
	case STRTAB_BASE_HI:
	case STRTAB_BASE_CFG:
		wrote_strtab += forbidden;
		break;
	case CMDQ_BASE:
		break;
	default:
		return;
	}
	/* A crash kernel's first write to one of these is where its probe is */
	if (now >= panic_time && !probe_time)
		probe_time = now;
}

static void take_over_range(uint64_t start, uint64_t end)
{
	if (end >= UINT32_MAX)		/* CFGI_ALL is no take-over */
		return;
	for (int i = 0; i < nr_streams; i++)
		if (streams[i].sid >= start && streams[i].sid <= end)
			take_over(&streams[i]);
}

static void trace_line(enum event event, const char *text)
{
	static const enum count counted[] = {
		[DISABLE] = DISABLED, [BYPASS] = BYPASSED, [ABORT] = ABORTED,
	};
	struct stream *s;
	uint64_t iova;

	switch (event) {
	case IGNORED:
		break;
	case SUCCESS:
		s = stream_of(need(text, "sid"));
		learn_region(s, text);
		translated(s, text);
		break;
	case DISABLE:
	case BYPASS:
	case ABORT:
		s = stream_of(need(text, "sid"));
		learn_region(s, text);
		count(s, counted[event]);
		if (event == BYPASS || (event == DISABLE && phase_of(s) == TAKEN)) {
			iova = need(text, "iova");
			note_access(s, phase_of(s), iova, iova);
		}
		break;
	case RECORD:
		count(stream_of(need(text, "sid")), EVENTS);
		break;
	case WRITE:
		write_register(need(text, "addr"), need(text, "val"));
		break;
	case CFGI_STE:
		take_over(stream_of(need(text, "streamid")));
		break;
	case CFGI_RANGE:
		take_over_range(need(text, "start"), need(text, "end"));
		break;
	}
}

/*
 * A guest error. Those of the SMMU's translations count for the StreamID; when
 * EVENTQEN = 0 they are all that tells of a fault. The memory region's name ends
 * in "-DEVFN-INDEX"; on bus 0 DEVFN is the StreamID.
 */
static void other_line(const char *line)
{
	const char *at = strstr(line, " translation failed for iova"), *digit;
	struct stream *s = NULL;
	uint64_t devfn;

	if (!at)
		return;
	for (int i = 0; i < nr_streams && !s; i++)
		if (strlen(streams[i].region) == (size_t)(at - line) &&
		    !memcmp(streams[i].region, line, at - line))
			s = &streams[i];
	if (!s) {
		digit = memrchr(line, '-', at - line);
		digit = digit ? memrchr(line, '-', digit - line) : NULL;
		if (!digit || !number(digit + 1, &devfn))
			die("whose translation failed? `%s'", line);
		s = stream_of(devfn);
	}
	count(s, FAULTS);
}

/* "PID@SECONDS.MICROSECONDS:" at the start of a line: what follows, or NULL. */
static const char *pid_time(const char *line)
{
	uint64_t pid, seconds, micros;
	const char *dot, *at = number(line, &pid);

	dot = at && *at == '@' ? number(at + 1, &seconds) : NULL;
	at = dot && *dot == '.' ? number(dot + 1, &micros) : NULL;
	if (!at || *at != ':' || at - dot != 7)
		return NULL;
	now = seconds * 1000000 + micros;
	return at + 1;
}

/* "YYYY-MM-DDTHH:MM:SS.MICROSECONDSZ " at the start of a line: what follows, or NULL. */
static const char *iso_time(const char *line)
{
	struct tm tm = { };
	const char *dot = strptime(line, "%Y-%m-%dT%H:%M:%S", &tm), *at = dot;
	uint64_t micros = 0;

	if (!dot || dot - line != sizeof("YYYY-MM-DDTHH:MM:SS") - 1 || strchr(line, ' ') < dot)
		return NULL;
	/* Microseconds that happen to be 0 are left out. */
	if (*dot == '.') {
		at = number(dot + 1, &micros);
		if (!at || at - dot != 7)
			return NULL;
	}
	if (!at || at[0] != 'Z' || at[1] != ' ')
		return NULL;
	now = timegm(&tm) * 1000000ULL + micros;
	return at + 2;
}

static bool is_event(const char *name)
{
	return !strncmp(name, PREFIX, strlen(PREFIX));
}

static void one_line(char *line)
{
	const char *time = pid_time(line);
	const struct known *found;
	char *name, *text;

	if (!time) {
		time = iso_time(line);
		if (!time && is_event(line))
			die("a trace line without a time; QEMU needs -msg timestamp=on: `%s'", line);
		if (!time && isdigit((unsigned char)*line))
			die("not a trace line: `%s'", line);
		if (!time || !is_event(time)) {
			other_line(time ? time : line);
			return;
		}
	}
	text = line + (time - line);
	name = strsep(&text, " ");
	found = bsearch(name + strlen(PREFIX), known, KNOWN, sizeof(known[0]), compare_name);
	if (!is_event(name) || !found)
		die("unknown event `%s'; this reader has to learn it", name);
	nr_trace++;
	trace_line(found->event, text ? text : "");
}

static void read_all(FILE *file)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;

	while ((len = getline(&line, &size, file)) > 0) {
		line_number++;
		if (line[len - 1] != '\n')
			die("the last line is cut off: `%.80s'", line);
		line[len - 1] = '\0';
		if (strlen(line) != (size_t)len - 1)
			die("a zero byte after `%.80s'", line);
		one_line(line);
	}
	if (ferror(file))
		die("%s", strerror(errno));
	if (!nr_trace)
		die("no SMMUv3 trace in it");
}

static const char *when(uint64_t time)
{
	static char text[4][32];
	static int turn;

	if (!time)
		return "null";
	turn = (turn + 1) % 4;
	snprintf(text[turn], sizeof(text[0]), "%" PRIu64 ".%06" PRIu64, time / 1000000,
		 time % 1000000);
	return text[turn];
}

static void print_stream(const struct stream *s)
{
	printf("    {\"sid\": %u, \"take_over\": %s, \"first_dma\": %s, \"last_dma\": %s, \"late\": %" PRIu64
	       ", \"completions\": %" PRIu64 ", \"drained\": %" PRIu64, s->sid, when(s->take_over),
	       when(s->first_dma), when(s->last_dma), s->late, s->completions, s->drained);
	if (s->has_example)
		printf(",\n     \"example\": {\"iova\": %" PRIu64 ", \"addr\": %" PRIu64 "}",
		       s->example_iova, s->example_addr);
	for (int phase = 0; phase < PHASES; phase++) {
		printf(",\n     \"%s\": {", phase_name[phase]);
		for (int i = 0; i < COUNTS; i++)
			printf("%s\"%s\": %" PRIu64, i ? ", " : "", count_name[i],
			       s->counts[phase][i]);
		putchar('}');
	}
	putchar('}');
}

static void print_result(void)
{
	printf("{\n  \"probe\": %s,\n", when(probe_time));
	printf("  \"ended\": %s, \"ended_aborting\": %s,\n", ended ? "true" : "false",
	       ended_aborting ? "true" : "false");
	printf("  \"cleared_smmuen\": %" PRIu64 ", \"wrote_strtab\": %" PRIu64
	       ", \"wrote_cr1\": %" PRIu64 ", \"wrote_cr2\": %" PRIu64 ",\n",
	       cleared_smmuen, wrote_strtab, wrote_cr1, wrote_cr2);
	printf("  \"streams\": [\n");
	for (int i = 0; i < nr_streams; i++) {
		print_stream(&streams[i]);
		printf("%s\n", i + 1 < nr_streams ? "," : "");
	}
	printf("  ]\n}\n");
}

int main(int argc, char **argv)
{
	FILE *file;

	if (argc < 6 || argc > 5 + MAX_RANGES)
		goto usage;
	file_name = argv[1];
	panic_time = strtod(argv[2], NULL) * 1e6 + 0.5;
	shutdown_time = strtod(argv[3], NULL) * 1e6 + 0.5;
	doorbell = strtoull(argv[4], NULL, 0);
	for (int i = 5; i < argc; i++, nr_ranges++) {
		uint64_t start, end;

		if (sscanf(argv[i], "%" SCNi64 "-%" SCNi64, &start, &end) != 2 || end <= start)
			goto usage;
		crash_memory[nr_ranges].start = start;
		crash_memory[nr_ranges].end = end;
	}
	file = fopen(file_name, "r");
	if (!file)
		die("%s", strerror(errno));
	read_all(file);
	print_result();
	return 0;
usage:
	fprintf(stderr, "usage: %s FILE PANIC SHUTDOWN DOORBELL START-END...\n", argv[0]);
	return 2;
}
