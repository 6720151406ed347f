// Package tui is the console: the only Bubble Tea model, its panes, drawing, theme and keys.
// It reads api.Snapshot through an api.Source and knows nothing else of the engine.
//
// Everything shown is Text, which only Sanitize and the number formats make. A screen is tiled by
// layout, a pure function of its size; each pane gives lines of exactly its width, kept until its
// snapshot, place, focus or the console's own state changes. At rest the whole picture is held.
package tui
