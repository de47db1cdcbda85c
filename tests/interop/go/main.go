// Serves the functions that every language's server serves, with the Go SDK of Stateful Functions.
//
// It is started with --port (default 0: the system chooses) and --version (1 or 2), prints
// "listening on PORT", and ends when its standard input does.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/apache/flink-statefun/statefun-sdk-go/v3/pkg/statefun"
)

// requests counts what this process was sent.
var requests atomic.Int32

func main() {
	port := flag.Int("port", 0, "where to listen; 0 leaves it to the system")
	version := flag.Int("version", 1, "which version of the functions to serve, 1 or 2")
	flag.Parse()
	if *version < 1 || *version > 2 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}

	builder := statefun.StatefulFunctionsBuilder()
	for _, spec := range functions(*version) {
		if err := builder.WithSpec(spec); err != nil {
			log.Fatal(err)
		}
	}
	handler := builder.AsHandler()
	counting := func(writer http.ResponseWriter, request *http.Request) {
		if request.Method == http.MethodPost {
			requests.Add(1)
		}
		handler.ServeHTTP(writer, request)
	}

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log.Fatal(http.Serve(listener, http.HandlerFunc(counting)))
}
