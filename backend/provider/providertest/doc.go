// Package providertest holds the contract of providers, and a stand-in for a paid API to prove it
// against. It is for tests alone.
package providertest
