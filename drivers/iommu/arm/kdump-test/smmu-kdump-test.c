// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test driver of the SMMUv3 kdump adoption project. It is laid over test kernels
 * only and does nothing unless a parameter asks for it.
 *
 * smmu_kdump_test.delay_ms=N holds a crash kernel for N milliseconds before the
 * SMMU driver probes. A virtual machine's crash kernel gets there in less than a
 * second, a large server's in many; DMA goes on all that time.
 * smmu_kdump_test.settle_ms=N does so after it has probed, before the devices
 * behind it do: time to see their DMA go on under the crash kernel.
 *
 * smmu_kdump_test.damage_l1, written at run time, damages the SMMU's stream table
 * as a stray write of a crashing kernel would: without any invalidation.
 * smmu_kdump_test.chaos does so by chance, and to all levels of it.
 * smmu_kdump_test.moment panics in a state that is hard to hit.
 * smmu_kdump_test.die=1 lets a crash kernel panic, too, after the SMMU has probed.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bits.h>
#include <linux/crash_core.h>
#include <linux/crash_dump.h>
#include <linux/delay.h>
#include <linux/efi.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/irq.h>
#include <linux/irq_work.h>
#include <linux/irqdomain.h>
#include <linux/kexec.h>
#include <linux/moduleparam.h>
#include <linux/of.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <linux/prandom.h>
#include <linux/preempt.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/smmu-kdump-test.h>
#include <linux/smp.h>

/* IHI0070 6.3.1, 6.3.2, 6.3.9, 6.3.10, 6.3.19, 6.3.24 to 6.3.28 */
#define IDR0			0x0
#define IDR1			0x4
#define CR0			0x20
#define CR0ACK			0x24
#define CR0_SMMUEN		BIT(0)
#define IRQ_CTRL		0x50
#define GERROR			0x60
#define GERRORN			0x64
#define CMDQ_ERR		BIT(0)
#define CMDQ_BASE		0x90
#define CMDQ_ADDR		GENMASK_ULL(55, 5)
#define CMDQ_LOG2SIZE		GENMASK(4, 0)
#define CMDQ_PROD		0x98
#define CMDQ_CONS		0x9c
#define CMDQ_ENTRY		16		/* bytes */
#define CMD_NONE		0xff		/* no such command */
#define STRTAB_BASE		0x80
#define STRTAB_BASE_ADDR	GENMASK_ULL(55, 6)
#define STRTAB_BASE_CFG		0x88
#define STRTAB_FMT		GENMASK(17, 16)
#define STRTAB_FMT_2LVL		BIT(16)
#define STRTAB_SPLIT(cfg)	(((cfg) >> 6) & 0x1f)
#define STRTAB_LOG2SIZE(cfg)	((cfg) & 0x3f)

static unsigned int delay_ms;
module_param(delay_ms, uint, 0444);
MODULE_PARM_DESC(delay_ms, "Hold a crash kernel for this long before the SMMU probes (ms)");

/* The first SMMU, be it of a device tree or of ACPI's IORT */
static struct device *smmu_device(void)
{
	struct device_driver *drv = driver_find("arm-smmu-v3", &platform_bus_type);

	return drv ? driver_find_next_device(drv, NULL) : NULL;
}

/* Its page 0 */
static void __iomem *smmu_registers(void)
{
	struct device *dev = smmu_device();
	void __iomem *regs = NULL;
	struct resource *res;

	if (dev) {
		res = platform_get_resource(to_platform_device(dev), IORESOURCE_MEM, 0);
		regs = res ? ioremap(res->start, SZ_4K) : NULL;
		put_device(dev);
	}
	return regs;
}

/* The L1 table of a two-level stream table, and its number of descriptors */
static __le64 *smmu_l1_table(unsigned int *num)
{
	void __iomem *regs = smmu_registers();
	phys_addr_t base;
	u32 cfg;

	if (!regs)
		return ERR_PTR(-ENODEV);
	cfg = readl(regs + STRTAB_BASE_CFG);
	base = readq(regs + STRTAB_BASE) & STRTAB_BASE_ADDR;
	iounmap(regs);
	if ((cfg & STRTAB_FMT) != STRTAB_FMT_2LVL || STRTAB_SPLIT(cfg) != 8)
		return ERR_PTR(-ERANGE);
	*num = 1 << (STRTAB_LOG2SIZE(cfg) - 8);
	return phys_to_virt(base);
}

static int damage_l1_set(const char *val, const struct kernel_param *kp)
{
	unsigned int num, index, count = 1;
	__le64 *l1;
	u64 value;

	if (sscanf(val, "%u %lli %u", &index, &value, &count) < 2)
		return -EINVAL;

	l1 = smmu_l1_table(&num);
	if (IS_ERR(l1))
		return PTR_ERR(l1);
	if (index >= num || count > num - index)
		return -ERANGE;
	for (; count; count--, index++) {
		pr_info("L1 descriptor %u: 0x%016llx becomes 0x%016llx\n", index,
			le64_to_cpu(l1[index]), value);
		WRITE_ONCE(l1[index], cpu_to_le64(value));
	}
	return 0;
}

static const struct kernel_param_ops damage_l1_ops = {
	.set = damage_l1_set,
};
module_param_cb(damage_l1, &damage_l1_ops, NULL, 0200);
MODULE_PARM_DESC(damage_l1, "\"INDEX VALUE [COUNT]\": overwrite L1 stream-table descriptors");

/* Chaos: the tables that the SMMU has now, damaged by chance (IHI0070 5.1 to 5.4) */

#define STE_WORDS		8
#define STE_V			BIT_ULL(0)
#define STE_CONFIG		GENMASK_ULL(3, 1)
#define STE_LIVE		BIT_ULL(3)	/* of Config */
#define STE_S1FMT		GENMASK_ULL(5, 4)
#define STE_S1CDMAX		GENMASK_ULL(63, 59)
#define STE_2_S2AA64		BIT_ULL(51)	/* of word 2 */
#define L1_SPAN			GENMASK_ULL(4, 0)
#define TABLE_PTR		GENMASK_ULL(55, 6)
#define MAX_USED		64

static struct rnd_state chaos_rnd;

static u32 chance(u32 ceil)
{
	return prandom_u32_state(&chaos_rnd) % ceil;
}

static u64 random64(void)
{
	u64 val;

	prandom_bytes_state(&chaos_rnd, &val, sizeof(val));
	return val;
}

#define HOLE			0x8000000000

/* Memory that UEFI has kept for its runtime services, where an L2 table could be. The host reads it */
static u64 runtime_memory(void)
{
	efi_memory_desc_t *md;

	if (efi_enabled(EFI_MEMMAP))
		for_each_efi_memory_desc(md)
			if (md->type == EFI_RUNTIME_SERVICES_DATA && IS_ALIGNED(md->phys_addr, SZ_16K)) {
				pr_info("chaos: UEFI keeps 0x%llx-0x%llx\n", md->phys_addr,
					md->phys_addr + md->num_pages * EFI_PAGE_SIZE - 1);
				return md->phys_addr;
			}
	return HOLE;
}

/* Where no table is, though some of it is memory */
static u64 bad_place(void)
{
	switch (chance(7)) {
	case 0:
		return 0;
	case 1:
		return 0x9000000;		/* the UART of QEMU's virt machine */
	case 2:
		return HOLE;
	case 3:
		return crashk_res.start;	/* the crash kernel's memory */
	case 4:
		return TABLE_PTR;		/* beyond what there can be */
	case 5:
		return runtime_memory();
	default:
		return random64() & TABLE_PTR;
	}
}

/* The host reads this: which StreamIDs need not survive. Something changes always */
static void put(__le64 *word, u64 val, const char *what, u32 first, u32 last)
{
	if (val == le64_to_cpu(*word))
		val ^= BIT_ULL(chance(64));
	pr_info("chaos: %s of StreamIDs 0x%x-0x%x: 0x%016llx becomes 0x%016llx\n",
		what, first, last, le64_to_cpu(*word), val);
	WRITE_ONCE(*word, cpu_to_le64(val));
}

static u64 replace(u64 val, u64 mask, u64 with)
{
	return (val & ~mask) | (with & mask);
}

static void damage_l1(__le64 *l1, u32 index)
{
	u32 first = index << 8, last = first + 255;
	u64 val = le64_to_cpu(l1[index]);

	switch (chance(4)) {
	case 0:
		put(&l1[index], replace(val, L1_SPAN, chance(32)), "L1 Span", first, last);
		break;
	case 1:
		put(&l1[index], replace(bad_place(), L1_SPAN, 9), "L1 pointer", first, last);
		break;
	case 2:
		put(&l1[index], (val ?: crashk_res.start | 9) + SZ_64 * (1 + chance(255)),
		    "unaligned L1 pointer", first, last);
		break;
	default:
		put(&l1[index], val ^ BIT_ULL(chance(64)), "bit of the L1 descriptor", first, last);
	}
}

static void damage_ste(__le64 *ste, u32 sid)
{
	u64 val = le64_to_cpu(ste[0]);
	u32 word = chance(STE_WORDS);
	char what[40];

	switch (chance(6)) {
	case 0:
		put(ste, replace(val, STE_CONFIG, chance(8) << 1) | STE_V, "Config", sid, sid);
		break;
	case 1:
		put(ste, replace(val, STE_S1CDMAX, random64()), "S1CDMax", sid, sid);
		break;
	case 2:
		put(ste, replace(val, STE_S1FMT, random64()), "S1Fmt", sid, sid);
		break;
	case 3:
		put(ste, replace(val, TABLE_PTR, bad_place()), "S1ContextPtr", sid, sid);
		break;
	case 4:
		put(ste, val + BIT(6 + chance(6)), "S1ContextPtr", sid, sid);
		break;
	default:
		snprintf(what, sizeof(what), "bit of word %u of the STE", word);
		put(&ste[word], le64_to_cpu(ste[word]) ^ BIT_ULL(chance(64)), what, sid, sid);
	}
}

static void damage_cd(__le64 *cd, u32 sid)
{
	u32 word = chance(8);
	char what[40];

	switch (chance(3)) {
	case 0:
		put(&cd[0], random64() | BIT_ULL(31), "CD with V", sid, sid);
		break;
	case 1:
		put(&cd[0], replace(le64_to_cpu(cd[0]), GENMASK_ULL(63, 48), random64()), "ASID",
		    sid, sid);
		break;
	default:
		snprintf(what, sizeof(what), "bit of word %u of the CD", word);
		put(&cd[word], le64_to_cpu(cd[word]) ^ BIT_ULL(chance(64)), what, sid, sid);
	}
}

/*
 * A 4 KiB page of an L2 table: 64 STEs. The host reads what those have that do not abort.
 * None asks for AArch32's translation tables at stage 2: QEMU's SMMU asserts that there are none.
 */
static void damage_page(__le64 *stes, u32 first)
{
	static __le64 noise[64 * STE_WORDS];
	u32 page = chance(4) * 64, i;
	__le64 *ste;

	first += page;
	pr_info("chaos: noise for StreamIDs 0x%x-0x%x\n", first, first + 63);
	prandom_bytes_state(&chaos_rnd, noise, sizeof(noise));
	for (i = 0, ste = noise; i < 64; i++, ste += STE_WORDS) {
		ste[2] |= cpu_to_le64(STE_2_S2AA64);
		if ((le64_to_cpu(ste[0]) & (STE_V | STE_LIVE)) == (STE_V | STE_LIVE))
			pr_info("chaos: noise in StreamID 0x%x: 0x%016llx, word 2 0x%016llx\n",
				first + i, le64_to_cpu(ste[0]), le64_to_cpu(ste[2]));
	}
	memcpy(stes + page * STE_WORDS, noise, sizeof(noise));
}

static int chaos_set(const char *val, const struct kernel_param *kp)
{
	static __le64 *used[MAX_USED], *cds[MAX_USED];	/* STEs of stage 1, their CDs */
	static u32 sids[MAX_USED];
	unsigned int num, i, k, seed, count, n = 0;
	void __iomem *regs = smmu_registers();
	__le64 *l1, *stes = NULL;

	if (sscanf(val, "%u %u", &seed, &count) != 2)
		return -EINVAL;
	l1 = smmu_l1_table(&num);
	if (IS_ERR(l1))
		return PTR_ERR(l1);
	/* The host judges by it what must be found to be bad */
	pr_info("chaos: IDR0 0x%08x, IDR1 0x%08x\n", readl(regs + IDR0), readl(regs + IDR1));
	iounmap(regs);
	for (i = 0; i < num; i++) {
		if (!(le64_to_cpu(l1[i]) & L1_SPAN))
			continue;
		stes = phys_to_virt(le64_to_cpu(l1[i]) & TABLE_PTR);
		for (k = 0; k < 256 && n < MAX_USED; k++) {
			used[n] = stes + k * STE_WORDS;
			cds[n] = phys_to_virt(le64_to_cpu(*used[n]) & TABLE_PTR);
			sids[n] = i * 256 + k;
			n += (le64_to_cpu(*used[n]) & (STE_V | STE_CONFIG)) == (STE_V | 5 << 1);
		}
	}
	if (!n)
		return -ENOENT;

	/* Its first outputs are much the same for small seeds */
	prandom_seed_state(&chaos_rnd, seed);
	for (i = 0; i < 10; i++)
		random64();
	while (count--) {
		i = chance(n);
		k = sids[i] & 255;
		stes = used[i] - k * STE_WORDS;		/* their L2 table */
		switch (chance(8)) {
		case 0:
			damage_l1(l1, sids[i] >> 8);
			break;
		case 1:
		case 2:
			damage_l1(l1, chance(num));
			break;
		case 3:
		case 4:
			damage_ste(used[i], sids[i]);
			break;
		case 5:
			k = chance(256);
			damage_ste(stes + k * STE_WORDS, (sids[i] & ~255) + k);
			break;
		case 6:
			damage_cd(cds[i], sids[i]);
			break;
		default:
			damage_page(stes, sids[i] & ~255);
		}
	}
	return 0;
}

static const struct kernel_param_ops chaos_ops = {
	.set = chaos_set,
};
module_param_cb(chaos, &chaos_ops, NULL, 0200);
MODULE_PARM_DESC(chaos, "\"SEED COUNT\": damage the stream table by chance, so many times");

/* Moments in which a kernel may panic */

/*
 * What the host looks for, in every kind of panic. What there is to tell of the moment
 * follows it where it can: another line would take the time of a frame, which the
 * kernel still takes as long as it lives, and which nobody finds again.
 */
#define PANIC_TEXT		"sysrq triggered crash"

static void __noreturn die_now(void)
{
	panic(PANIC_TEXT);
}

/* The SMMU is being enabled: its queues are not yet */
static void die_in_cr0_update(void __iomem *regs)
{
	unsigned int ms = 100;

	writel(readl(regs + CR0) & CR0_SMMUEN, regs + CR0);
	while (readl(regs + CR0ACK) != readl(regs + CR0) && ms--)
		mdelay(1);
	panic(PANIC_TEXT ", CR0 0x%x, CR0ACK 0x%x", readl(regs + CR0), readl(regs + CR0ACK));
}

/*
 * The command queue has stopped at a command that there is not. It is @full: as
 * many follow as it holds. The interrupt that would mend it is off.
 */
static void die_with_cmdq_err(void __iomem *regs, bool full)
{
	u64 base = readq(regs + CMDQ_BASE);
	u32 size = BIT(base & CMDQ_LOG2SIZE), prod = readl(regs + CMDQ_PROD), cons;
	__le64 *entry = phys_to_virt(base & CMDQ_ADDR) + (prod & (size - 1)) * CMDQ_ENTRY;
	unsigned int ms = 100;

	writel(0, regs + IRQ_CTRL);
	WRITE_ONCE(entry[0], cpu_to_le64(CMD_NONE));
	wmb();
	writel(full ? prod ^ size : (prod + 1) & (2 * size - 1), regs + CMDQ_PROD);
	while (!((readl(regs + GERROR) ^ readl(regs + GERRORN)) & CMDQ_ERR) && ms--)
		mdelay(1);
	cons = readl(regs + CMDQ_CONS);
	/* Another processor may have put commands of its own into it */
	if (full)
		writel((cons & (2 * size - 1)) ^ size, regs + CMDQ_PROD);
	prod = readl(regs + CMDQ_PROD);
	/* The upper bits of CMDQ_CONS tell of the error. The wrap bits differ when it is full */
	full = !((prod ^ cons ^ size) & (2 * size - 1));
	pr_info("GERROR 0x%x, CMDQ_PROD 0x%x, CMDQ_CONS 0x%x%s\n",
		readl(regs + GERROR) ^ readl(regs + GERRORN), prod, cons, full ? ", full" : "");
	die_now();
}

static void die_in_interrupt(struct irq_work *work)
{
	panic(PANIC_TEXT ", in %s interrupt", in_hardirq() ? "an" : "no");
}

static bool deaf;

/* A processor that no interrupt reaches: it can not be stopped */
static void be_deaf(void *unused)
{
	local_irq_disable();
	WRITE_ONCE(deaf, true);
	for (;;)
		cpu_relax();
}

#if IS_ENABLED(CONFIG_ARM64_PSEUDO_NMI)
#define NMI_SPI			200	/* QEMU's virt machine has no device with it */

static irqreturn_t die_in_nmi(int irq, void *unused)
{
	panic(PANIC_TEXT ", in %s NMI", in_nmi() ? "an" : "no");
}

/*
 * An interrupt of the SMMU's interrupt controller, as a pseudo-NMI. The boot processor takes
 * it, which is deaf to others. What a panic in an NMI says may come to the dump alone.
 */
static int raise_nmi(void)
{
	struct device *dev = smmu_device();
	struct irq_fwspec fwspec;
	struct irq_data *data;
	unsigned int irq;
	int ret;

	data = irq_get_irq_data(platform_get_irq(to_platform_device(dev), 0));
	put_device(dev);
	if (!data)
		return -ENODEV;
	fwspec.fwnode = data->domain->fwnode;
	if (is_of_node(fwspec.fwnode)) {	/* an SPI */
		fwspec.param_count = 3;
		fwspec.param[0] = 0;
		fwspec.param[1] = NMI_SPI;
		fwspec.param[2] = IRQ_TYPE_EDGE_RISING;
	} else {
		fwspec.param_count = 2;
		fwspec.param[0] = 32 + NMI_SPI;
		fwspec.param[1] = IRQ_TYPE_EDGE_RISING;
	}
	irq = irq_create_fwspec_mapping(&fwspec);
	ret = request_nmi(irq, die_in_nmi, IRQF_PERCPU | IRQF_NO_AUTOEN, "die_in_nmi", NULL);
	if (ret)
		return ret;
	enable_nmi(irq);
	ret = set_cpus_allowed_ptr(current, cpumask_of(1));
	if (ret)
		return ret;
	pr_emerg(PANIC_TEXT ", by an NMI\n");
	smp_call_function_single(0, be_deaf, NULL, false);
	while (!READ_ONCE(deaf))
		cpu_relax();
	irq_set_irqchip_state(irq, IRQCHIP_STATE_PENDING, true);
	mdelay(1000);
	return -ETIME;
}
#else
static int raise_nmi(void)
{
	return -EOPNOTSUPP;
}
#endif

/*
 * All that a suspend of the machine does to the network card. What it receives while its
 * driver unmaps its memory faults in any kernel: the panic is to come after that. It must not
 * wake the machine, or it would go on receiving, and its interrupts with that.
 */
static int suspend_nic(void)
{
	struct pci_dev *pdev = pci_get_class(PCI_CLASS_NETWORK_ETHERNET << 8, NULL);
	const struct dev_pm_ops *pm = pci_bus_type.pm;
	int ret;

	if (!pdev)
		return -ENODEV;
	device_set_wakeup_enable(&pdev->dev, false);
	device_lock(&pdev->dev);
	ret = pm->suspend(&pdev->dev) ?: pm->suspend_late(&pdev->dev) ?: pm->suspend_noirq(&pdev->dev);
	device_unlock(&pdev->dev);
	pr_info("%s is in state D%d\n", pci_name(pdev), pdev->current_state);
	return ret;
}

static int moment_set(const char *val, const struct kernel_param *kp)
{
	static DEFINE_IRQ_WORK(work, die_in_interrupt);
	static int *volatile nowhere;
	void __iomem *regs = smmu_registers();
	int ret = 0;

	if (!regs)
		return -ENODEV;
	pr_info("moment: %s\n", val);
	if (sysfs_streq(val, "interrupt"))
		irq_work_queue(&work);
	else if (sysfs_streq(val, "deaf"))
		smp_call_function(be_deaf, NULL, 0);
	else if (sysfs_streq(val, "nmi"))
		ret = raise_nmi();
	else if (sysfs_streq(val, "suspend"))
		return suspend_nic();
	else if (sysfs_streq(val, "oops"))
		pr_emerg(PANIC_TEXT ", by an oops\n");
	else if (sysfs_streq(val, "hang"))		/* as the writer is */
		pr_emerg(PANIC_TEXT ", by a hung task\n");
	else if (!sysfs_streq(val, "cr0") && !sysfs_streq(val, "cmdq_err") &&
		 !sysfs_streq(val, "cmdq_full"))
		return -EINVAL;
	if (ret)
		return ret;

	if (sysfs_streq(val, "interrupt") || sysfs_streq(val, "hang")) {
		msleep(10000);
		return -ETIME;
	}
	if (sysfs_streq(val, "oops"))
		*nowhere = 0;
	local_irq_disable();
	if (sysfs_streq(val, "cr0"))
		die_in_cr0_update(regs);
	if (sysfs_streq(val, "cmdq_err") || sysfs_streq(val, "cmdq_full"))
		die_with_cmdq_err(regs, sysfs_streq(val, "cmdq_full"));
	die_now();
}

static const struct kernel_param_ops moment_ops = {
	.set = moment_set,
};
module_param_cb(moment, &moment_ops, NULL, 0200);
MODULE_PARM_DESC(moment, "Panic in the moment of this name; \"suspend\" returns, without a panic");

static bool die;
module_param(die, bool, 0444);
MODULE_PARM_DESC(die, "Panic in a crash kernel, after the SMMU has probed");

static unsigned int settle_ms;
module_param(settle_ms, uint, 0444);
MODULE_PARM_DESC(settle_ms, "Hold a crash kernel for this long after the SMMU probed (ms)");

static void smmu_kdump_test_hold(unsigned int ms, const char *when)
{
	ms = min_t(unsigned int, ms, SMMU_KDUMP_TEST_MAX_DELAY_MS);
	if (!ms || !is_kdump_kernel())
		return;

	pr_info("holding the crash kernel for %u ms, %s\n", ms, when);
	msleep(ms);
}

static int __init smmu_kdump_test_delay(void)
{
	smmu_kdump_test_hold(delay_ms, "before the SMMU");
	return 0;
}
/* Before device_initcall, at which the SMMU driver registers */
fs_initcall_sync(smmu_kdump_test_delay);

static int __init smmu_kdump_test_settle(void)
{
	smmu_kdump_test_hold(settle_ms, "after the SMMU");
	if (die && is_kdump_kernel())
		panic("the crash kernel panics, too");
	return 0;
}
/*
 * Linked after the SMMU driver. PCI host bridges wait for the SMMU and probe at
 * late_initcall, so their devices come after this.
 */
device_initcall(smmu_kdump_test_settle);
