// Package capture keeps the prompts and answers of the keys that are told to keep theirs (capture of a key), in a
// database of its own in the state folder, for a while and up to a size. It is the only place on disk where text of
// requests is. Nothing in the engine reads it: "vllmdeck keys captured" does, from the same folder.
package capture
