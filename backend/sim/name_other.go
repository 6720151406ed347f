//go:build unix && !linux

package sim

func setName(string) {}
