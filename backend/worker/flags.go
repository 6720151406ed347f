package worker

// FlagValue gives the value of a flag of "vllm serve" (its name without dashes) as vLLM reads a
// command line: in either form, the last mention wins. "" if it is not there.
func FlagValue(args []string, flag string) string { return flagValue(args, flag) }
