// Command gen makes the embedded price table of the price lists in prices/source:
//
//	go run ./backend/cost/prices/gen
//
// With -trim it first makes those lists of the full upstream files, whose names end in the day
// they were read:
//
//	go run ./backend/cost/prices/gen -trim litellm_model_prices_2026-07-24.json genai_prices_v2_data_slim_2026-08-21.json
package main
