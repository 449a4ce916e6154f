package main

func (a *agent) watch(ch *channel, r *pathRequest) (any, error) {
	return nil, fail(codeInternal, "not yet")
}
