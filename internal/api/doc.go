// SPDX-License-Identifier: Apache-2.0

// Package api serves the daemon over HTTP: the REST API of the original
// (attach, detach, ping), its looking glass, health, readiness and metrics.
//
// Requests are decoded completely before anything is touched; a fault is
// answered with the JSON object {"code", "title", "description"}, whose
// description names the field. Unknown members of a request are ignored, a
// JSON null counts as absent.
package api
