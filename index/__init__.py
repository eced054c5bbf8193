"""The offline half: from a folder of pictures, or drawn scenes, to a store."""
