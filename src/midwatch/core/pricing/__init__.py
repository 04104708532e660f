"""What a model call used and what that costs: usage of every dialect, price lists, exact arithmetic. Pure.

`openai`, `anthropic` and `gemini` read what a provider says into one `Usage` whose parts are disjoint;
`shelf` finds the price of a model in the user's own prices and in two bundled lists; `cost` multiplies.
"""
