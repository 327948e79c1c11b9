/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the test driver of the SMMUv3 kdump adoption project and by what
 * runs around it. Plain C, no other header: programs include it too.
 */
#ifndef _LINUX_SMMU_KDUMP_TEST_H
#define _LINUX_SMMU_KDUMP_TEST_H

/* Longest time that the crash kernel can be held, in milliseconds */
#define SMMU_KDUMP_TEST_MAX_DELAY_MS	60000

/*
 * Writing "INDEX VALUE" here, numbers as strtoul() takes them, puts VALUE into
 * that L1 stream-table descriptor of the running kernel's SMMU.
 */
#define SMMU_KDUMP_TEST_DAMAGE_L1 \
	"/sys/module/smmu_kdump_test/parameters/damage_l1"

/* Writing "SEED COUNT" here damages the stream table by chance, so many times. */
#define SMMU_KDUMP_TEST_CHAOS \
	"/sys/module/smmu_kdump_test/parameters/chaos"

/* Writing the name of a moment here panics in it; of "suspend" begins it: see smmu-kdump-test.c */
#define SMMU_KDUMP_TEST_MOMENT \
	"/sys/module/smmu_kdump_test/parameters/moment"

#endif /* _LINUX_SMMU_KDUMP_TEST_H */
