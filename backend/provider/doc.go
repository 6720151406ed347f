// Package provider reaches paid APIs that nobody here launched: OpenAI and whatever speaks like it.
// A Provider knows the address, the key, the models and the prices of one of them, and keeps its
// spend cap: money is reserved before a request is sent and settled when its cost is known. The key
// is added on the way out, for the provider's own origin alone, and taken out of whatever comes
// back. It does not know when a provider should serve: that is decided by who routes.
package provider
