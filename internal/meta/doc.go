// SPDX-License-Identifier: Apache-2.0

// Package meta has no code: its tests hold rules of the whole project, such as
// the order of imports and the licence of every file.
package meta
