// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test driver of the SMMUv3 kdump adoption project. It is laid over test kernels
 * only and does nothing unless a parameter asks for it.
 *
 * smmu_kdump_test.delay_ms=N holds a crash kernel for N milliseconds before the
 * SMMU driver probes. A virtual machine's crash kernel gets there in less than a
 * second, a large server's in many; DMA goes on all that time.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/crash_dump.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/smmu-kdump-test.h>

static unsigned int delay_ms;
module_param(delay_ms, uint, 0444);
MODULE_PARM_DESC(delay_ms, "Hold a crash kernel for this long before the SMMU probes (ms)");

static int __init smmu_kdump_test_init(void)
{
	unsigned int ms = min_t(unsigned int, delay_ms,
				SMMU_KDUMP_TEST_MAX_DELAY_MS);

	if (!ms || !is_kdump_kernel())
		return 0;

	pr_info("holding the crash kernel for %u ms\n", ms);
	msleep(ms);
	return 0;
}
/* Before device_initcall, at which the SMMU driver registers */
fs_initcall_sync(smmu_kdump_test_init);
