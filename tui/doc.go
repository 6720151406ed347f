// Package tui is the console: the only Bubble Tea model, its panes, drawing, theme and keys.
// It reads api.Snapshot through an api.Source and knows nothing else of the engine.
package tui
