package main

func sudo(arguments []string) int { return 1 }

func (a *agent) serveSudo(path string) error { return nil }
