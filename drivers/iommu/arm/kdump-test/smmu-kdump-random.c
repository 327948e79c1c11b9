// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random stream tables with random damage, adopted by the driver, and a plain
 * reading of what is to become of them: on a copy, and with the bit numbers of
 * the specification. A suite of KUnit, laid over test kernels only.
 *
 * smmu_kdump_random.kdump_runs=N makes N tables, .kdump_seed=N other ones. A
 * failure prints the seed and how many tables came before.
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/prandom.h>
#include <linux/printk.h>

#include "../arm-smmu-v3/arm-smmu-v3.h"

#define ARENA_SIZE	SZ_1M

static unsigned int kdump_seed = 1;
module_param(kdump_seed, uint, 0444);
MODULE_PARM_DESC(kdump_seed, "Seed of the random stream tables");

static unsigned int kdump_runs = 100000;
module_param(kdump_runs, uint, 0444);
MODULE_PARM_DESC(kdump_runs, "Number of random stream tables");

static struct {
	struct arm_smmu_device smmu, before;
	struct rnd_state rnd;
	void *regs;
	/* The crashed kernel's memory, which ends with ram_size, and its copy */
	void *arena, *want;
	phys_addr_t pa;
	size_t used, ram_size;
	struct arm_smmu_strtab_l1 *l1tab;
	struct arm_smmu_ste *stes;	/* if it is linear */
} rt;

/* What the reference finds */
static struct {
	unsigned int damage, stalls;
	bool cd_stalls;
	DECLARE_BITMAP(vmids, ARM_SMMU_MAX_VMIDS);
	DECLARE_BITMAP(asids, ARM_SMMU_MAX_ASIDS);
	DECLARE_BITMAP(ste_asids, ARM_SMMU_MAX_ASIDS);
	DECLARE_BITMAP(seen_asids, ARM_SMMU_MAX_ASIDS);
} ref;

static bool random_table_ok(phys_addr_t addr, size_t size)
{
	return addr >= rt.pa && addr + size <= rt.pa + rt.ram_size;
}

/* The tables */

static u32 random(u32 ceil)
{
	return prandom_u32_state(&rt.rnd) % ceil;
}

static phys_addr_t random_place(size_t size)
{
	rt.used = ALIGN(rt.used, size) + size;
	return rt.pa + rt.used - size;
}

static struct arm_smmu_ste *random_ste(u32 sid)
{
	__le64 *desc;

	if (rt.stes)
		return &rt.stes[sid];
	desc = &rt.l1tab[arm_smmu_strtab_l1_idx(sid)].l2ptr;
	if (!*desc)
		*desc = cpu_to_le64(random_place(SZ_16K) |
				    FIELD_PREP(STRTAB_L1_DESC_SPAN, STRTAB_SPLIT + 1));
	return (struct arm_smmu_ste *)phys_to_virt(le64_to_cpu(*desc) & STRTAB_L1_DESC_L2PTR_MASK) +
	       arm_smmu_strtab_l2_idx(sid);
}

static u64 random_cdtab(void)
{
	unsigned int cdmax = random(4) ? 0 : random(8), two_level = random(2), cds = random(3), i;
	u64 stall = random(8) ? 0 : CTXDESC_CD_0_S;
	phys_addr_t cdtab, leaf = 0;
	struct arm_smmu_cd *cd;

	/* With leaves of 4 KiB */
	if (cdmax && two_level) {
		cdtab = random_place(SZ_64);
		for (i = 0; i < max(1, (1 << cdmax) / 64); i++) {
			leaf = random_place(SZ_4K);
			((__le64 *)phys_to_virt(cdtab))[i] = cpu_to_le64(leaf | CTXDESC_L1_DESC_V);
		}
		cd = phys_to_virt(leaf);
	} else {
		cdtab = random_place(SZ_64 << cdmax);
		cd = phys_to_virt(cdtab);
	}
	for (i = 0; i < cds; i++, cd += random(min(1 << cdmax, 64)))
		cd->data[0] = cpu_to_le64(CTXDESC_CD_0_V | stall |
					  FIELD_PREP(CTXDESC_CD_0_ASID, random(i ? 260 : 200)));
	return cdtab | FIELD_PREP(STRTAB_STE_0_S1FMT, two_level) |
	       FIELD_PREP(STRTAB_STE_0_S1CDMAX, cdmax);
}

static void random_strtab(void)
{
	bool linear = random(8);
	phys_addr_t base;
	unsigned int i;

	memset(rt.arena, 0, rt.used);
	rt.used = SZ_64;
	rt.ram_size = linear ? SZ_16K : SZ_64K;
	base = random_place(linear ? 32 * sizeof(struct arm_smmu_ste) : SZ_64);
	rt.stes = linear ? phys_to_virt(base) : NULL;
	rt.l1tab = linear ? NULL : phys_to_virt(base);
	*(u64 *)(rt.regs + ARM_SMMU_STRTAB_BASE) = base;
	*(u32 *)(rt.regs + ARM_SMMU_STRTAB_BASE_CFG) =
		linear ? 5 : STRTAB_BASE_CFG_FMT_2LVL << 16 | STRTAB_SPLIT << 6 | 10;
	for (i = 0; i < 10; i++) {
		struct arm_smmu_ste *ste = random_ste(random(32) + (linear ? 0 : random(3) << 8));
		u8 cfg = random(2) ? STRTAB_STE_0_CFG_S1_TRANS : random(8);
		u64 val = STRTAB_STE_0_V | FIELD_PREP(STRTAB_STE_0_CFG, cfg);

		if (cfg == STRTAB_STE_0_CFG_S1_TRANS)
			val |= random_cdtab();
		/* The rest is neither read nor written */
		memset(ste, 0xa5, sizeof(*ste));
		ste->data[0] = cpu_to_le64(val);
		ste->data[1] = cpu_to_le64(random(2) ? 0 : STRTAB_STE_1_S1STALLD);
		ste->data[2] = cpu_to_le64((random(8) ? 0 : STRTAB_STE_2_S2S) | random(260));
	}
	rt.used = max(rt.used, rt.ram_size);
}

/* Some places more often than others: what the driver reads */
static void random_damage(void)
{
	__le64 *words = rt.arena, *word = &words[random(rt.ram_size / 8)];
	u64 val;

	switch (random(16)) {
	case 0:
		*(u64 *)(rt.regs + ARM_SMMU_STRTAB_BASE) ^= BIT_ULL(random(56));
		return;
	case 1:
		*(u32 *)(rt.regs + ARM_SMMU_STRTAB_BASE_CFG) ^= BIT(random(18));
		return;
	case 2 ... 4:
		if (rt.l1tab)
			word = &rt.l1tab[random(4)].l2ptr;
		break;
	case 5 ... 12:
		if (rt.stes)
			word = rt.stes[random(32)].data + 2 * random(2);
		break;
	}
	val = le64_to_cpu(*word);
	switch (random(4)) {
	case 0:
		prandom_bytes_state(&rt.rnd, &val, sizeof(val));
		break;
	case 1:
		val = rt.pa + random(rt.ram_size);
		break;
	default:
		val ^= BIT_ULL(random(64));
	}
	*word = cpu_to_le64(val);
}

/* The reference */

static u64 ref_bits(u64 val, unsigned int high, unsigned int low)
{
	return (val << (63 - high)) >> (63 - high + low);
}

/* NULL for what is not RAM, or not aligned to its size */
static __le64 *ref_table(u64 addr, u64 size)
{
	if (addr % size || !random_table_ok(addr, size))
		return NULL;
	return rt.want + (addr - rt.pa);
}

static bool ref_cds(u64 addr, unsigned int num)
{
	__le64 *cd = ref_table(addr, num * 64);

	for (; cd && num; cd += 8, num--) {
		u64 val = le64_to_cpu(*cd), asid = ref_bits(val, 63, 48);

		if (!ref_bits(val, 31, 31))
			continue;
		if (asid >> rt.smmu.asid_bits)
			return false;
		__set_bit(asid, ref.ste_asids);
		ref.cd_stalls |= ref_bits(val, 44, 44);
	}
	return cd;
}

static bool ref_cdtab(u64 val)
{
	unsigned int cdmax = ref_bits(val, 63, 59), fmt = ref_bits(val, 5, 4);
	unsigned int i, num, per_leaf = fmt == 1 ? 64 : 1024;
	u64 ptr = ref_bits(val, 55, 6) << 6;
	__le64 *l1;

	if (cdmax > rt.smmu.ssid_bits)
		return false;
	if (!cdmax || fmt == 0)
		return ref_cds(ptr, 1 << cdmax);
	if (fmt == 3 || !(rt.smmu.features & ARM_SMMU_FEAT_2_LVL_CDTAB))
		return false;
	num = max(1, (1 << cdmax) / per_leaf);
	l1 = ref_table(ptr, max(64, num * 8));
	for (i = 0; l1 && i < num; i++) {
		val = le64_to_cpu(l1[i]);
		if (ref_bits(val, 0, 0) && !ref_cds(ref_bits(val, 55, 12) << 12, per_leaf))
			return false;
	}
	return l1;
}

static void ref_stes(__le64 *ste, unsigned int num)
{
	unsigned int nr_asids = 1 << rt.smmu.asid_bits;

	for (; num; ste += 8, num--) {
		u64 val = le64_to_cpu(ste[0]), word2 = le64_to_cpu(ste[2]);
		bool s1 = ref_bits(val, 1, 1), s2 = ref_bits(val, 2, 2), ok;
		u64 vmid = ref_bits(word2, 15, 0);

		if (!ref_bits(val, 0, 0) || !ref_bits(val, 3, 3))
			continue;
		ref.cd_stalls = s2;
		bitmap_zero(ref.ste_asids, nr_asids);
		ok = (!s1 || rt.smmu.features & ARM_SMMU_FEAT_TRANS_S1) &&
		     (!s2 || rt.smmu.features & ARM_SMMU_FEAT_TRANS_S2);
		if (ok && s2) {
			ok = vmid && !(vmid >> rt.smmu.vmid_bits);
			if (ok)
				__set_bit(vmid, ref.vmids);
		} else if (ok && s1) {
			ok = ref_cdtab(val);
		}
		if (!ok) {
			ref.damage++;
			ste[0] &= ~cpu_to_le64(1);
		} else if ((rt.smmu.features & ARM_SMMU_FEAT_STALLS) &&
			   ((s1 && ref.cd_stalls && !ref_bits(le64_to_cpu(ste[1]), 27, 27)) ||
			    (s2 && ref_bits(word2, 57, 57)))) {
			ref.stalls++;
			ste[0] &= ~cpu_to_le64(7 << 1);
		}
		if (ok)
			bitmap_or(ref.asids, ref.asids, ref.ste_asids, nr_asids);
		bitmap_or(ref.seen_asids, ref.seen_asids, ref.ste_asids, nr_asids);
	}
}

static bool ref_2lvl(u64 base, unsigned int num)
{
	__le64 *table = ref_table(base, max(64, num * 8)), *l2;
	unsigned int i;

	for (i = 0; table && i < num; i++) {
		u64 desc = le64_to_cpu(table[i]);

		if (!ref_bits(desc, 4, 0))
			continue;
		l2 = ref_table(ref_bits(desc, 55, 6) << 6, SZ_16K);
		if (l2 && ref_bits(desc, 5, 0) == 9 && !ref_bits(desc, 63, 56)) {
			ref_stes(l2, 256);
		} else {
			ref.damage++;
			table[i] = 0;
		}
	}
	return table;
}

/* Is the table to be adopted? */
static bool ref_adopt(void)
{
	u32 cfg = *(u32 *)(rt.regs + ARM_SMMU_STRTAB_BASE_CFG);
	u64 base = ref_bits(*(u64 *)(rt.regs + ARM_SMMU_STRTAB_BASE), 55, 6) << 6;
	unsigned int log2 = ref_bits(cfg, 5, 0);
	__le64 *table;

	memset(&ref, 0, sizeof(ref));
	if (log2 > rt.smmu.sid_bits)
		return false;
	switch (ref_bits(cfg, 17, 16)) {
	case 0:
		table = ref_table(base, 64ULL << log2);
		if (!table)
			return false;
		ref_stes(table, 1 << log2);
		break;
	case 1:
		if (!(rt.before.features & ARM_SMMU_FEAT_2_LVL_STRTAB) ||
		    ref_bits(cfg, 10, 6) != 8 || log2 < 8 || !ref_2lvl(base, 1 << (log2 - 8)))
			return false;
		break;
	default:
		return false;
	}
	return ref.damage <= 64 && ref.stalls <= 1024;
}

/* The driver against the reference */

/* All VMIDs and no others, after which none is reserved any more */
static bool random_vmids_match(void)
{
	unsigned int vmid;

	for_each_set_bit(vmid, ref.vmids, 1 << rt.smmu.vmid_bits) {
		if (ida_alloc_range(&rt.smmu.vmid_map, vmid, vmid, GFP_KERNEL) != -ENOSPC)
			return false;
		ida_free(&rt.smmu.vmid_map, vmid);
	}
	return ida_is_empty(&rt.smmu.vmid_map);
}

/* A stream that is cut off may leave some of its ASIDs reserved */
static bool random_adopted_right(void)
{
	const unsigned long *asids = rt.smmu.kdump->asids;
	unsigned int nr_asids = 1 << rt.smmu.asid_bits;

	return !memcmp(rt.want, rt.arena, rt.used) && random_vmids_match() &&
	       bitmap_subset(ref.asids, asids, nr_asids) &&
	       bitmap_subset(asids, ref.seen_asids, nr_asids) &&
	       rt.smmu.kdump->num_stalls == ref.stalls;
}

/* But for the lock of its VMIDs, of which there must be none */
static bool random_no_trace(void)
{
	rt.before.vmid_map = rt.smmu.vmid_map;
	return ida_is_empty(&rt.smmu.vmid_map) && !memcmp(&rt.before, &rt.smmu, sizeof(rt.smmu));
}

static void smmu_kdump_test_random(struct kunit *test)
{
	size_t num_devres = list_count_nodes(&rt.smmu.dev->devres_head);
	unsigned int run, i, whole = 0, dropped = 0;
	int loglevel = console_loglevel, ret = 0;
	u32 features = rt.smmu.features;
	bool adopt = false;

	kunit_info(test, "seed %u, %u tables\n", kdump_seed, kdump_runs);
	/* The console's thread may yet have to print this */
	msleep(200);
	console_loglevel = LOGLEVEL_WARNING;
	prandom_seed_state(&rt.rnd, kdump_seed);
	for (run = 0; run < kdump_runs; run++) {
		random_strtab();
		for (i = random(5); i; i--)
			random_damage();
		rt.smmu.features = features ^ (random(8) ? 0 : BIT(random(14)));
		rt.before = rt.smmu;
		memcpy(rt.want, rt.arena, rt.used);
		rt.smmu.options = ARM_SMMU_OPT_KDUMP_ADOPT;
		ret = arm_smmu_kdump_adopt_strtab(&rt.smmu);
		adopt = ref_adopt();
		if (!ret != adopt || (adopt && !random_adopted_right()))
			break;
		if (adopt)
			arm_smmu_kdump_drop(&rt.smmu);
		if (!random_no_trace())
			break;
		whole += adopt && !ref.damage;
		dropped += !adopt;
		cond_resched();
	}
	console_loglevel = loglevel;
	KUNIT_EXPECT_EQ_MSG(test, run, kdump_runs,
			    "seed %u: reference %s, %u damaged, driver %d\n", kdump_seed,
			    adopt ? "adopts" : "drops", ref.damage, ret);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&rt.smmu.dev->devres_head), num_devres);
	kunit_info(test, "%u adopted whole, %u in part, %u dropped\n", whole,
		   run - whole - dropped, dropped);
}

static int smmu_kdump_random_init(struct kunit *test)
{
	memset(&rt, 0, sizeof(rt));
	rt.regs = kunit_kzalloc(test, SZ_4K, GFP_KERNEL);
	rt.arena = kunit_kzalloc(test, ARENA_SIZE, GFP_KERNEL);
	rt.want = kunit_kzalloc(test, ARENA_SIZE, GFP_KERNEL);
	KUNIT_ASSERT_TRUE(test, rt.regs && rt.arena && rt.want);
	rt.pa = virt_to_phys(rt.arena);
	rt.smmu.dev = kunit_device_register(test, "smmu-kdump-random");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, rt.smmu.dev);
	rt.smmu.base = (void __iomem __force *)rt.regs;
	rt.smmu.features = ARM_SMMU_FEAT_2_LVL_STRTAB | ARM_SMMU_FEAT_2_LVL_CDTAB |
			   ARM_SMMU_FEAT_COHERENCY | ARM_SMMU_FEAT_TRANS_S1 |
			   ARM_SMMU_FEAT_TRANS_S2;
	rt.smmu.asid_bits = 8;
	rt.smmu.vmid_bits = 8;
	rt.smmu.sid_bits = 12;
	rt.smmu.ssid_bits = 12;
	ida_init(&rt.smmu.vmid_map);
	kunit_activate_static_stub(test, arm_smmu_kdump_table_ok, random_table_ok);
	return 0;
}

static struct kunit_case smmu_kdump_random_cases[] = {
	KUNIT_CASE_SLOW(smmu_kdump_test_random),
	{}
};

/* The name begins as those of the driver's suites do, which are chosen by it */
static struct kunit_suite smmu_kdump_random = {
	.name = "arm-smmu-v3-kdump-random",
	.init = smmu_kdump_random_init,
	.test_cases = smmu_kdump_random_cases,
};

kunit_test_suites(&smmu_kdump_random);

MODULE_DESCRIPTION("Random stream tables for the SMMUv3 kdump adoption");
MODULE_LICENSE("GPL");
