// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long the adoption of a stream table takes, against reading the same bytes
 * once. Laid over test kernels only; `make bench` boots it.
 *
 * The tables are made in memory that the kernel was told to leave alone (mem= on
 * its command line), so that the driver finds them as a crash kernel finds those
 * of the crashed one: through its own mappings. No kernel has crashed, so the look
 * into the crashed kernel's core header is replaced: all of it is that kernel's.
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/io.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/sort.h>

#include "../arm-smmu-v3/arm-smmu-v3.h"

#define BENCH_RUNS		5
#define BENCH_SID_BITS		15	/* each live stream may want an ASID of 16 bits */
#define BENCH_ASIDS		SZ_16K	/* so that the crash kernel has enough left */
#define BENCH_L1_SIZE		(sizeof(struct arm_smmu_strtab_l1) << \
				 (BENCH_SID_BITS - STRTAB_SPLIT))
#define BENCH_L2		SZ_64K	/* where they are in the arena */
#define BENCH_CDS		SZ_8M
#define BENCH_MAX_STREAMS	BIT(BENCH_SID_BITS)
#define BENCH_ARENA_SIZE	(BENCH_CDS + BENCH_MAX_STREAMS * SZ_4K)

static unsigned long arena;
module_param(arena, ulong, 0444);
MODULE_PARM_DESC(arena, "Physical address of memory that the kernel does not use");

struct bench {
	void *va;
	struct arm_smmu_device *smmu;
	struct arm_smmu_strtab_l1 *l1;
	struct arm_smmu_strtab_l2 *l2;
	void *cds;
};

/* L1, then all L2 tables, then one CD for each StreamID, @stride bytes apart */
static size_t bench_build(struct bench *b, unsigned int streams, size_t stride)
{
	phys_addr_t l2_pa = arena + BENCH_L2, cds_pa = arena + BENCH_CDS;
	size_t bytes = BENCH_L1_SIZE;
	unsigned int sid;

	memset(b->va, 0, BENCH_CDS);
	for (sid = 0; sid < streams; sid++) {
		unsigned int idx = arm_smmu_strtab_l1_idx(sid);
		struct arm_smmu_cd *cd = b->cds + sid * stride;
		struct arm_smmu_ste *ste;

		if (!b->l1[idx].l2ptr) {
			b->l1[idx].l2ptr =
				cpu_to_le64((l2_pa + idx * sizeof(*b->l2)) |
					    FIELD_PREP(STRTAB_L1_DESC_SPAN,
						       STRTAB_SPLIT + 1));
			bytes += sizeof(*b->l2);
		}

		memset(cd, 0, sizeof(*cd));
		cd->data[0] = cpu_to_le64(CTXDESC_CD_0_V |
					  FIELD_PREP(CTXDESC_CD_0_ASID,
						     1 + sid % BENCH_ASIDS));
		bytes += sizeof(*cd);

		ste = &b->l2[idx].stes[arm_smmu_strtab_l2_idx(sid)];
		ste->data[0] = cpu_to_le64(STRTAB_STE_0_V | (cds_pa + sid * stride) |
					   FIELD_PREP(STRTAB_STE_0_CFG,
						      STRTAB_STE_0_CFG_S1_TRANS));
	}
	return bytes;
}

static u64 bench_sum(const void *from, size_t size)
{
	const u64 *word = from;
	u64 sum = 0;

	for (; size; size -= sizeof(*word))
		sum += READ_ONCE(*word++);
	return sum;
}

/* Through a new mapping, as nothing of it is in a crash kernel's TLB either */
static s64 bench_read(struct kunit *test, unsigned int streams, size_t stride)
{
	void *va = memremap(arena, BENCH_ARENA_SIZE, MEMREMAP_WB);
	unsigned int sid, idx;
	ktime_t start, end;
	u64 sum;

	KUNIT_ASSERT_NOT_NULL(test, va);
	start = ktime_get();
	sum = bench_sum(va, BENCH_L1_SIZE);
	for (idx = 0; idx < DIV_ROUND_UP(streams, STRTAB_NUM_L2_STES); idx++)
		sum += bench_sum(va + BENCH_L2 +
				 idx * sizeof(struct arm_smmu_strtab_l2),
				 sizeof(struct arm_smmu_strtab_l2));
	for (sid = 0; sid < streams; sid++)
		sum += bench_sum(va + BENCH_CDS + sid * stride,
				 sizeof(struct arm_smmu_cd));
	OPTIMIZER_HIDE_VAR(sum);
	end = ktime_get();
	memunmap(va);
	return ktime_to_ns(ktime_sub(end, start));
}

static bool bench_table_ok(phys_addr_t addr, size_t size)
{
	return addr >= arena && addr + size <= arena + BENCH_ARENA_SIZE;
}

static s64 bench_adopt(struct kunit *test, struct bench *b)
{
	struct arm_smmu_device *smmu = b->smmu;
	ktime_t start, end;
	int ret;

	/* As the driver has them when it comes to its stream table */
	smmu->features = ARM_SMMU_FEAT_2_LVL_STRTAB | ARM_SMMU_FEAT_2_LVL_CDTAB |
			 ARM_SMMU_FEAT_COHERENCY | ARM_SMMU_FEAT_TRANS_S1 |
			 ARM_SMMU_FEAT_TRANS_S2;
	smmu->options = ARM_SMMU_OPT_KDUMP_ADOPT;
	smmu->sid_bits = BENCH_SID_BITS;
	smmu->ssid_bits = 0;
	smmu->asid_bits = 16;
	smmu->vmid_bits = 16;
	memset(&smmu->strtab_cfg, 0, sizeof(smmu->strtab_cfg));
	ida_init(&smmu->vmid_map);

	start = ktime_get();
	ret = arm_smmu_kdump_adopt_strtab(smmu);
	end = ktime_get();

	KUNIT_ASSERT_EQ(test, ret, 0);
	arm_smmu_kdump_drop(smmu);
	return ktime_to_ns(ktime_sub(end, start));
}

static int bench_cmp(const void *a, const void *b)
{
	return *(const s64 *)a < *(const s64 *)b ? -1 : 1;
}

static s64 bench_median(s64 *times)
{
	sort(times, BENCH_RUNS, sizeof(*times), bench_cmp, NULL);
	return times[BENCH_RUNS / 2];
}

static void bench_one(struct kunit *test, struct bench *b, unsigned int streams,
		      size_t stride)
{
	size_t bytes = bench_build(b, streams, stride);
	s64 read[BENCH_RUNS], adopt[BENCH_RUNS];
	int i, level = console_loglevel;

	/* The serial line is not what is measured, but must print the result before */
	pr_flush(1000, true);
	console_loglevel = CONSOLE_LOGLEVEL_SILENT;
	/* The first of each warms up and is overwritten; in turns, as loads vary */
	for (i = -1; i < BENCH_RUNS; i++) {
		read[max(i, 0)] = bench_read(test, streams, stride);
		adopt[max(i, 0)] = bench_adopt(test, b);
	}
	pr_flush(1000, true);
	console_loglevel = level;

	kunit_info(test, "bench: streams=%u stride=%zu bytes=%zu read_ns=%lld adopt_ns=%lld\n",
		   streams, stride, bytes, bench_median(read),
		   bench_median(adopt));
}

static void bench_stride(struct kunit *test, size_t stride)
{
	static const unsigned int streams[] = {
		1, 64, 1024, 16384, BENCH_MAX_STREAMS
	};
	struct bench *b = test->priv;
	int i;

	for (i = 0; i < ARRAY_SIZE(streams); i++)
		bench_one(test, b, streams[i], stride);
}

static void smmu_kdump_bench_adopt(struct kunit *test)
{
	kunit_activate_static_stub(test, arm_smmu_kdump_table_ok, bench_table_ok);
	bench_stride(test, sizeof(struct arm_smmu_cd));
	/* As the driver allocates them, each in a page of its own */
	bench_stride(test, SZ_4K);
}

static int smmu_kdump_bench_init(struct kunit *test)
{
	struct arm_smmu_device *smmu;
	struct bench *b;

	if (!arena)
		kunit_skip(test, "no memory given: smmu_kdump_bench.arena=");

	b = kunit_kzalloc(test, sizeof(*b), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, b);
	b->va = memremap(arena, BENCH_ARENA_SIZE, MEMREMAP_WB);
	KUNIT_ASSERT_NOT_NULL(test, b->va);
	b->l1 = b->va;
	b->l2 = b->va + BENCH_L2;
	b->cds = b->va + BENCH_CDS;
	test->priv = b;

	smmu = kunit_kzalloc(test, sizeof(*smmu), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, smmu);
	smmu->dev = kunit_device_register(test, "smmu-kdump-bench");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, smmu->dev);
	smmu->base = (void __iomem __force *)kunit_kzalloc(test, SZ_4K, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, (void __force *)smmu->base);
	writeq_relaxed(arena, smmu->base + ARM_SMMU_STRTAB_BASE);
	writel_relaxed(FIELD_PREP(STRTAB_BASE_CFG_FMT, STRTAB_BASE_CFG_FMT_2LVL) |
		       FIELD_PREP(STRTAB_BASE_CFG_SPLIT, STRTAB_SPLIT) |
		       FIELD_PREP(STRTAB_BASE_CFG_LOG2SIZE, BENCH_SID_BITS),
		       smmu->base + ARM_SMMU_STRTAB_BASE_CFG);
	b->smmu = smmu;
	return 0;
}

static void smmu_kdump_bench_exit(struct kunit *test)
{
	struct bench *b = test->priv;

	if (b && b->va)
		memunmap(b->va);
}

static struct kunit_case smmu_kdump_bench_cases[] = {
	KUNIT_CASE_SLOW(smmu_kdump_bench_adopt),
	{},
};

static struct kunit_suite smmu_kdump_bench_suite = {
	.name = "smmu-kdump-bench",
	.init = smmu_kdump_bench_init,
	.exit = smmu_kdump_bench_exit,
	.test_cases = smmu_kdump_bench_cases,
};
kunit_test_suite(smmu_kdump_bench_suite);
