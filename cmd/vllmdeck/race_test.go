//go:build race

package main

// raceDetector makes everything ten times slower: times say nothing then.
const raceDetector = true
