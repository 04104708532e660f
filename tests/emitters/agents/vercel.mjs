// Vercel's AI SDK with its telemetry on: turn 1 whole, with a tool; turn 2 streamed.
import { createOpenAI } from '@ai-sdk/openai';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { BatchSpanProcessor, NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const provider = new NodeTracerProvider({
  spanProcessors: [
    new BatchSpanProcessor(
      new OTLPTraceExporter({ url: process.env.OTEL_EXPORTER_OTLP_ENDPOINT + '/v1/traces' }),
    ),
  ],
});
provider.register();
const openai = createOpenAI({ baseURL: process.env.REHEARSAL_URL + '/v1', apiKey: 'rehearsal' });
const telemetry = {
  isEnabled: true,
  functionId: 'weather-clerk',
  metadata: { sessionId: 'conversation-7', userId: 'user-3' },
};
const system = 'You are a weather clerk. Ask the tool before you answer.';
const first = await generateText({
  model: openai.chat('gpt-4o-mini'),
  system,
  prompt: 'What is the weather in Paris?',
  stopWhen: stepCountIs(3),
  tools: {
    get_weather: tool({
      description: 'The weather in a city, now.',
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `21 degrees, sunny (${city})`,
    }),
  },
  experimental_telemetry: telemetry,
});
const second = streamText({
  model: openai.chat('gpt-4o-mini'),
  system,
  messages: [
    { role: 'user', content: 'What is the weather in Paris?' },
    { role: 'assistant', content: first.text },
    { role: 'user', content: 'Thank you very much.' },
  ],
  experimental_telemetry: telemetry,
});
for await (const _ of second.textStream);
await provider.shutdown();
