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
 * smmu_kdump_test.linear=1 has the SMMU driver take a linear stream table.
 *
 * smmu_kdump_test.damage_l1, written at run time, damages the SMMU's stream table
 * as a stray write of a crashing kernel would: without any invalidation.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bits.h>
#include <linux/crash_dump.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/moduleparam.h>
#include <linux/platform_device.h>
#include <linux/printk.h>
#include <linux/smmu-kdump-test.h>

/* IHI0070 6.3.24, 6.3.25 */
#define STRTAB_BASE		0x80
#define STRTAB_BASE_ADDR	GENMASK_ULL(55, 6)
#define STRTAB_BASE_CFG		0x88
#define STRTAB_FMT		GENMASK(17, 16)
#define STRTAB_FMT_2LVL		BIT(16)
#define STRTAB_SPLIT(cfg)	(((cfg) >> 6) & 0x1f)
#define STRTAB_LOG2SIZE(cfg)	((cfg) & 0x3f)

bool smmu_kdump_test_linear;
module_param_named(linear, smmu_kdump_test_linear, bool, 0444);
MODULE_PARM_DESC(linear, "Take a linear stream table, even where the SMMU has two-level ones");

static unsigned int delay_ms;
module_param(delay_ms, uint, 0444);
MODULE_PARM_DESC(delay_ms, "Hold a crash kernel for this long before the SMMU probes (ms)");

/* Page 0 of the first SMMU, be it of a device tree or of ACPI's IORT */
static void __iomem *smmu_registers(void)
{
	struct device_driver *drv = driver_find("arm-smmu-v3", &platform_bus_type);
	struct device *dev = drv ? driver_find_next_device(drv, NULL) : NULL;
	void __iomem *regs = NULL;
	struct resource *res;

	if (dev) {
		res = platform_get_resource(to_platform_device(dev), IORESOURCE_MEM, 0);
		regs = res ? ioremap(res->start, SZ_4K) : NULL;
		put_device(dev);
	}
	return regs;
}

static int damage_l1_set(const char *val, const struct kernel_param *kp)
{
	void __iomem *regs;
	unsigned long index;
	__le64 *desc;
	int ret = 0;
	u64 value;
	u32 cfg;

	if (sscanf(val, "%li %lli", &index, &value) != 2)
		return -EINVAL;

	regs = smmu_registers();
	if (!regs)
		return -ENODEV;

	cfg = readl(regs + STRTAB_BASE_CFG);
	if ((cfg & STRTAB_FMT) != STRTAB_FMT_2LVL ||
	    index >> (STRTAB_LOG2SIZE(cfg) - STRTAB_SPLIT(cfg))) {
		ret = -ERANGE;
		goto out;
	}

	desc = memremap((readq(regs + STRTAB_BASE) & STRTAB_BASE_ADDR) +
			index * sizeof(*desc), sizeof(*desc), MEMREMAP_WB);
	if (!desc) {
		ret = -ENOMEM;
		goto out;
	}
	pr_info("L1 descriptor %lu: 0x%016llx becomes 0x%016llx\n", index,
		le64_to_cpu(*desc), value);
	WRITE_ONCE(*desc, cpu_to_le64(value));
	memunmap(desc);
out:
	iounmap(regs);
	return ret;
}

static const struct kernel_param_ops damage_l1_ops = {
	.set = damage_l1_set,
};
module_param_cb(damage_l1, &damage_l1_ops, NULL, 0200);
MODULE_PARM_DESC(damage_l1, "\"INDEX VALUE\": overwrite an L1 stream-table descriptor");

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
	return 0;
}
/*
 * Linked after the SMMU driver. PCI host bridges wait for the SMMU and probe at
 * late_initcall, so their devices come after this.
 */
device_initcall(smmu_kdump_test_settle);
