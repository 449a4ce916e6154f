package main

import (
	"io"
	"net"
	"strings"
	"testing"
)

func TestHealthIsAnsweredInside(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go serveHealth(listener)
	for request, expected := range map[string]string{
		"GET /health HTTP/1.1\r\nHost: x\r\n\r\n":  "HTTP/1.1 200 OK",
		"HEAD /health HTTP/1.0\r\n\r\n":            "HTTP/1.1 200 OK",
		"POST /execute HTTP/1.1\r\n\r\n{}":         "HTTP/1.1 404 Not Found",
		"nonsense\r\n\r\n":                         "HTTP/1.1 404 Not Found",
		strings.Repeat("x", healthLine+1000) + "\n": "",
	} {
		connection, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(connection, request)
		answer, _ := io.ReadAll(connection)
		if first, _, _ := strings.Cut(string(answer), "\r\n"); first != expected {
			t.Fatal(request, string(answer))
		}
		connection.Close()
	}
}
