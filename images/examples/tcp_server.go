// Waits for its address, then serves there: tcp_server ADDRESS, HTTP on port 8080.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// listening listens on an address as soon as the Pod has it.
func listening(address string) (net.Listener, error) {
	for {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, "8080"))
		if !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return listener, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func main() {
	listener, err := listening(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	name, _ := os.Hostname()
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(answer, "Hello from %s\n", name)
	})))
}
