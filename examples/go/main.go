// Predictions over HTTP with the standard library alone, in the Open Inference Protocol.
//
// usage: go run . [HOST:PORT]          (the HTTP port, 127.0.0.1:8000 if not given)
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

type tensor struct {
	Name     string    `json:"name"`
	Datatype string    `json:"datatype"`
	Shape    []int64   `json:"shape"`
	Data     []float32 `json:"data,omitempty"`
}

type metadata struct {
	Inputs []tensor `json:"inputs"`
}

type inference struct {
	Inputs  []tensor `json:"inputs,omitempty"`
	Outputs []tensor `json:"outputs,omitempty"`
}

// refusal is an answer that is not 200: its text says what was expected.
type refusal struct {
	Status int
	Text   string `json:"error"`
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.Status, r.Text) }

// ask sends body, or nothing with GET, and reads the answer into answer.
func ask(ctx context.Context, method, url string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(text))
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		// What cannot be in time is refused at once instead of being computed for nobody.
		milliseconds := max(time.Until(deadline).Milliseconds(), 1)
		request.Header.Set("X-Request-Timeout", fmt.Sprint(milliseconds))
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		refused := &refusal{Status: reply.StatusCode}
		if err := json.NewDecoder(reply.Body).Decode(refused); err != nil {
			return err
		}
		return refused
	}
	return json.NewDecoder(reply.Body).Decode(answer)
}

func main() {
	server := "http://127.0.0.1:8000"
	if len(os.Args) > 1 {
		server = "http://" + os.Args[1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	var about metadata
	if err := ask(ctx, http.MethodGet, server+"/v2/models/diabetes", nil, &about); err != nil {
		log.Fatal(err)
	}
	for _, input := range about.Inputs {
		fmt.Println("takes", input.Name, input.Datatype, input.Shape)
	}

	rows := tensor{
		Name: "measurements", Datatype: "FP32", Shape: []int64{2, 10},
		Data: []float32{
			59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87,
			48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.8918, 69,
		},
	}
	var answer inference
	question := inference{Inputs: []tensor{rows}}
	if err := ask(ctx, http.MethodPost, server+"/v2/models/diabetes/infer", question, &answer); err != nil {
		log.Fatal(err)
	}
	fmt.Println("progression:", answer.Outputs[0].Data)

	err := ask(ctx, http.MethodPost, server+"/v2/models/nothing/infer", question, &answer)
	fmt.Println("refused:", err)
}
