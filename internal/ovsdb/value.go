// SPDX-License-Identifier: Apache-2.0

package ovsdb

import (
	"math"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

func byUUID(uuid string) []ovsdb.Condition {
	return []ovsdb.Condition{ovsdb.NewCondition("_uuid", ovsdb.ConditionEqual, ovsdb.UUID{GoUUID: uuid})}
}

// everyRow is a condition that all rows meet: the library leaves an empty list out.
func everyRow() []ovsdb.Condition {
	return []ovsdb.Condition{ovsdb.NewCondition("_uuid", ovsdb.ConditionNotEqual, ovsdb.UUID{GoUUID: "00000000-0000-0000-0000-000000000000"})}
}

func ovsMap(m map[string]string) ovsdb.OvsMap {
	out := map[any]any{}
	for k, v := range m {
		out[k] = v
	}
	return ovsdb.OvsMap{GoMap: out}
}

// text returns a string, the string of a UUID, or that of the only element of a set.
func text(v any) string {
	if list := texts(v); len(list) > 0 {
		return list[0]
	}
	return ""
}

// texts returns the strings or UUIDs of a set; a set of one is the element itself.
func texts(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case ovsdb.UUID:
		return []string{v.GoUUID}
	case ovsdb.OvsSet:
		for _, e := range v.GoSet {
			out = append(out, texts(e)...)
		}
	}
	return out
}

// number returns a port number; 0 for none and for -1, a port that failed.
func number(v any) uint32 {
	switch v := v.(type) {
	case float64:
		if v > 0 && v <= math.MaxUint32 {
			return uint32(v)
		}
	case int:
		return number(float64(v))
	case ovsdb.OvsSet:
		if len(v.GoSet) > 0 {
			return number(v.GoSet[0])
		}
	}
	return 0
}

func stringMap(v any) map[string]string {
	out := map[string]string{}
	m, _ := v.(ovsdb.OvsMap)
	for k, e := range m.GoMap {
		key, ok := k.(string)
		value, ok2 := e.(string)
		if ok && ok2 {
			out[key] = value
		}
	}
	return out
}
