// An agent of the Vercel AI SDK with a tool that runs code in a Skerry sandbox, through E2B's client, unmodified.
//
// E2B_API_URL, E2B_SANDBOX_URL and E2B_API_KEY say which server. A scripted model stands in for a language model, so
// that this runs anywhere; put a provider's model in its place.
import { Sandbox } from '@e2b/code-interpreter'
import { generateText, jsonSchema, stepCountIs, tool } from 'ai'
import { MockLanguageModelV4 } from 'ai/test'

const CELLS = ['sold = [5, 8, 11]', 'import platform; print(platform.release()); sum(sold) / len(sold)']

// Runs one cell after the other, and repeats the result of the last one.
let step = 0
const model = new MockLanguageModelV4({
  doGenerate: async ({ prompt }) => {
    const answers = prompt.filter((message) => message.role === 'tool').flatMap((message) => message.content)
    const usage = { inputTokens: { total: 0 }, outputTokens: { total: 0 } }
    if (step < CELLS.length) {
      const call = { type: 'tool-call', toolCallId: `call-${step}`, toolName: 'runCode', input: JSON.stringify({ code: CELLS[step++] }) }
      return { content: [call], finishReason: { unified: 'tool-calls' }, usage, warnings: [] }
    }
    const last = answers.at(-1).output.value
    return { content: [{ type: 'text', text: `The mean is ${last.result}.` }], finishReason: { unified: 'stop' }, usage, warnings: [] }
  },
})

const sandbox = await Sandbox.create()
try {
  const runCode = tool({
    description: 'Run Python; variables stay for the next call.',
    inputSchema: jsonSchema({ type: 'object', properties: { code: { type: 'string' } }, required: ['code'] }),
    execute: async ({ code }) => {
      const run = await sandbox.runCode(code)
      const outcome = { result: run.text ?? null, stdout: run.logs.stdout.join(''), error: run.error?.value ?? null }
      console.log(`runCode: ${code}\n  ${JSON.stringify(outcome)}`)
      return outcome
    },
  })
  const { text } = await generateText({ model, tools: { runCode }, stopWhen: stepCountIs(5), prompt: 'What is the mean?' })
  console.log(`answer: ${text}`)
} finally {
  await sandbox.kill()
}
