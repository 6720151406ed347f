package config

import _ "embed"

// Example is a config that names every key with its default.
//
//go:embed example.yaml
var Example []byte
