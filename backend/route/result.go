package route

// Result is what an upstream did with a request.
type Result int

// The results that a breaker tells apart.
const (
	Succeeded Result = iota
	Neutral          // the client left, or the request was at fault (4xx): says nothing about the upstream
	Failed           // refused, reset, 5xx, error event, silence
)
