package main

import (
	"os"
	"strconv"
	"strings"
)

// processBirth is the start time of a process in clock ticks since boot: field 22 of
// /proc/PID/stat. "" if there is no such process, or only what is left of one that has ended.
func processBirth(pid int) string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The name in field 2 may hold spaces and parentheses: count from its end.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}
