"""Draw two captions so that the pictures differ as the captions do: Prompt-to-Prompt."""
