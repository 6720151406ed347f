// Package modelcache knows the Hugging Face cache of this host: what is in it and which workers
// need it, how a model gets into it, and how one goes.
//
// Its layout is that of huggingface_hub (models--ORG--NAME/{blobs,refs,snapshots}, .locks), so
// what is fetched here is found by vLLM offline, and what others fetched is found here. The
// package knows no config and no worker: it is told the Needs.
package modelcache
