package config

import "github.com/vllmdeck/vllmdeck/backend/api"

// USD is money in the config, read exactly from a decimal number of dollars.
type USD = api.Nanos

// Bytes is a size, written as a number with an optional unit: 512, 64KiB, 32MiB, 1GB.
type Bytes int64

// Secret is a value named by env:NAME or file:PATH. Its Value never prints.
type Secret struct {
	Ref string // as written; "" for none
	Val string // read at Load
}

// String gives the reference, never the value.
func (s Secret) String() string { return s.Ref }
