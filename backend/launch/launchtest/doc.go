// Package launchtest is what every launcher of processes must hold to, as tests: whoever
// writes a launcher calls Run from a test and Main from TestMain. The servers that it starts
// are the test binary itself, in another mode.
package launchtest
