package main

import (
	"bufio"
	"io"
	"net"
	"strings"
	"time"
)

const (
	interpreterAddress = "0.0.0.0:49999" // where E2B's code interpreter listens inside
	healthPatience     = 5 * time.Second
	healthClients      = 16 // at a time; others wait
	healthLine         = 4096
)

// serveHealth answers programs inside that ask whether the code interpreter is ready, as ready commands of E2B's templates
// do. It always is: an interpreter that has ended is started anew by the next run. Everything else it offers is reached
// from outside only.
func serveHealth(listener net.Listener) {
	room := make(chan struct{}, healthClients)
	for {
		room <- struct{}{}
		connection, err := listener.Accept()
		if err != nil {
			<-room
			time.Sleep(100 * time.Millisecond) // out of descriptors
			continue
		}
		go func() {
			defer func() { <-room }()
			defer connection.Close()
			answerHealth(connection)
		}()
	}
}

func answerHealth(connection net.Conn) {
	connection.SetDeadline(time.Now().Add(healthPatience))
	line, err := bufio.NewReader(io.LimitReader(connection, healthLine)).ReadString('\n')
	if err != nil {
		return
	}
	status := "404 Not Found"
	words := strings.Fields(line)
	if len(words) == 3 && (words[0] == "GET" || words[0] == "HEAD") && words[1] == "/health" {
		status = "200 OK"
	}
	io.WriteString(connection, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	if half, ok := connection.(halfCloser); ok {
		half.CloseWrite() // a reset would take the answer away when more of the request is unread
		io.Copy(io.Discard, io.LimitReader(connection, healthLine))
	}
}
