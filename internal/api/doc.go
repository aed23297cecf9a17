// SPDX-License-Identifier: Apache-2.0

// Package api serves the daemon over HTTP: the REST API of the original
// (attach, detach, ping), operations on BGP peers, its looking glass, health,
// readiness and metrics.
//
// Requests are decoded completely before anything is touched; a fault is
// answered with the JSON object {"code", "title", "description"}, whose
// description names the field. Unknown members of an attach or detach are
// ignored, as by the original, those of operations refused; a JSON null counts
// as absent.
package api
