module skerry/agent

go 1.25
