// Package metrics reads what vLLM, GPUs and the host report, keeps the windows and histograms
// that screens show, and exposes our own metrics.
package metrics
