// Package apitest is the contract of api.Source: the same assertions for the engine, the client
// over a socket, and fakes.
package apitest
