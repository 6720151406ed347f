// Package api holds what a console and an engine say to each other: the Snapshot that is all
// there is to see, the Action that is every order, the four-method Source that both sides
// know, and the server and client that carry them over a unix socket.
//
// It is a leaf: it imports the standard library alone, and everybody may import it.
package api

import "time"

// Tick is how often the engine publishes a Snapshot and a console fetches one.
const Tick = 500 * time.Millisecond

// Schema is the version of Snapshot's JSON. Fields are only added under one number; a renamed
// or removed field raises it.
const Schema = 1
