// The tariff in Go. With Go 1.21 or newer, in this directory:
//
//	go run server.go 8000
//	cargo run --release --example polyglot -- --remote http://localhost:8000/
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/apache/flink-statefun/statefun-sdk-go/v3/pkg/statefun"
)

const freeSeconds = 20 * 60 * 60

var (
	used    = statefun.ValueSpec{Name: "used", ValueType: statefun.Int32Type}
	notices = statefun.TypeNameFrom("phones/notices")
)

func tariff(ctx statefun.Context, message statefun.Message) error {
	seconds := message.AsInt32()
	var total int32
	ctx.Storage().Get(used, &total)
	total += seconds
	ctx.Storage().Set(used, total)
	beyond := max(0, total-freeSeconds)
	ctx.Send(statefun.MessageBuilder{Target: *ctx.Caller(), Value: min(seconds, beyond)})
	if 0 < beyond && beyond <= seconds {
		ctx.SendEgress(&statefun.GenericEgressBuilder{
			Target:    notices,
			Value:     fmt.Sprintf("phone %s: the free hours are used up", ctx.Self().Id),
			ValueType: statefun.StringType,
		})
	}
	return nil
}

func main() {
	functions := statefun.StatefulFunctionsBuilder()
	err := functions.WithSpec(statefun.StatefulFunctionSpec{
		FunctionType: statefun.TypeNameFrom("phones/tariff"),
		States:       []statefun.ValueSpec{used},
		Function:     statefun.StatefulFunctionPointer(tariff),
	})
	if err != nil {
		log.Fatal(err)
	}
	port := "8000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	log.Fatal(http.ListenAndServe(":"+port, functions.AsHandler()))
}
