// Package hubtest is a Hugging Face hub for tests: the routes that a download uses, with large files on a
// second server as the hub's CDN has them, and the faults that a download must bear.
package hubtest
