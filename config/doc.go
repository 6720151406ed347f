// Package config is the one YAML file: its types with defaults beside them, loading,
// validation with line and column, and the commented example. It knows nothing of the parts
// that it configures.
package config
