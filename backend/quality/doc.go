// Package quality rates how healthy answers are (length, coherence, engagement, defects). It
// detects defects; it does not claim to know quality.
package quality
